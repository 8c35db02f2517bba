// Streamed answers of the OpenAI API.

import { ApiError, send } from "../core/api.js";

/** The data of server-sent events, one string each. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += value;
      const lines = rest.split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) yield line.slice(5).trim();
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function requestFor({ mode, model, prompt, maxTokens, temperature }) {
  const shared = {
    model,
    max_tokens: maxTokens,
    temperature,
    stream: true,
    // Chunks may hold several tokens; vLLM then says in each how many there are so far.
    stream_options: { include_usage: true, continuous_usage_stats: true },
  };
  return mode === "chat"
    ? ["v1/chat/completions", { ...shared, messages: [{ role: "user", content: prompt }] }]
    : ["v1/completions", { ...shared, prompt }];
}

/**
 * Ask one model; yields `{text, tokens, finish}`, tokens being all so far or null.
 * `onStart` gets the reference that answers, or null.
 */
export async function* answer(options, { signal, onStart }) {
  const [path, body] = requestFor(options);
  const response = await send(path, { method: "POST", body, signal });
  onStart(response.headers.get("X-Adapter-Version"));
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(
      chunk.error.code ?? 500,
      chunk.error.message ?? "The answer broke off.",
    );
    const choice = chunk.choices?.[0];
    yield {
      text: choice?.text ?? choice?.delta?.content ?? "",
      tokens: chunk.usage?.completion_tokens ?? null,
      finish: choice?.finish_reason ?? null,
    };
  }
  throw new ApiError(0, "The answer broke off.");
}
