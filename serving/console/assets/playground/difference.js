// Which words of one answer another does not have.

const MAX_WORDS = 3000;

/** Words and the space between them, nothing lost. */
export const words = (text) => text.match(/\s+|[^\s]+/g) ?? [];

const isSpace = (word) => /^\s/.test(word);

/**
 * `[text, differs]` pieces of `text` beside `reference`: a word differs where it is in no longest
 * common subsequence of words.
 */
export function differences(reference, text) {
  const ours = words(text);
  const theirs = words(reference).filter((word) => !isSpace(word));
  const mine = ours.filter((word) => !isSpace(word));
  const kept = commonWords(theirs, mine);
  const pieces = [];
  let index = 0;
  for (const word of ours) {
    // Space between two words that differ is marked with them.
    const isBetween = index > 0 && index < kept.length && !kept[index - 1] && !kept[index];
    const differs = isSpace(word) ? isBetween : !kept[index++];
    if (pieces.length && pieces.at(-1)[1] === differs) pieces.at(-1)[0] += word;
    else pieces.push([word, differs]);
  }
  return pieces;
}

/** Whether each word of `mine` is in a longest common subsequence with `theirs`. */
function commonWords(theirs, mine) {
  const kept = new Array(mine.length).fill(false);
  let start = 0;
  const shorter = Math.min(mine.length, theirs.length);
  while (start < shorter && mine[start] === theirs[start]) kept[start++] = true;
  const [rows, columns] = [mine.length - start, theirs.length - start];
  if (!rows || !columns || Math.max(rows, columns) > MAX_WORDS) return kept;
  const width = columns + 1;
  const lengths = new Uint16Array((rows + 1) * width);
  for (let row = rows - 1; row >= 0; row -= 1) {
    for (let column = columns - 1; column >= 0; column -= 1) {
      lengths[row * width + column] = mine[start + row] === theirs[start + column]
        ? lengths[(row + 1) * width + column + 1] + 1
        : Math.max(lengths[(row + 1) * width + column], lengths[row * width + column + 1]);
    }
  }
  let [row, column] = [0, 0];
  while (row < rows && column < columns) {
    if (mine[start + row] === theirs[start + column]) {
      kept[start + row] = true;
      row += 1;
      column += 1;
    } else if (lengths[(row + 1) * width + column] >= lengths[row * width + column + 1]) row += 1;
    else column += 1;
  }
  return kept;
}
