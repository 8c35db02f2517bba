// The address of what is shown: `#/page/item?name=value`.

export function parseRoute(hash) {
  const [path, search = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const [page = "", item = ""] = path.split("/", 2);
  let decoded = "";
  try {
    decoded = decodeURIComponent(item);
  } catch {
    // A hand-typed address: as if it named nothing.
  }
  return { page, item: decoded, params: new URLSearchParams(search) };
}

export function routeTo(page, item = "", params = new URLSearchParams()) {
  const search = params.toString();
  return `#/${page}${item ? `/${encodeURIComponent(item)}` : ""}${search ? `?${search}` : ""}`;
}
