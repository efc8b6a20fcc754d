// Asks the server. Answers are JSON; what goes wrong is an Error whose message a person can read.

const KEY = "prismrec-key";

export class KeyNeeded extends Error {}

export const keepKey = (key) => sessionStorage.setItem(KEY, key);

export const find = (path, parameters, signal) => ask(`${path}?${new URLSearchParams(parameters)}`, { signal });

export const post = (path, query, signal) =>
  ask(path, { method: "POST", body: JSON.stringify(query), signal, headers: { "content-type": "application/json" } });

async function ask(path, options) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key && { "x-api-key": key }) };
  let response, answer;
  try {
    response = await fetch(path, { ...options, headers });
    answer = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached.");
  }
  if (response.status === 401) throw new KeyNeeded(answer.error.message);
  if (!response.ok) throw new Error(answer.error?.message ?? `The server answers ${response.status}.`);
  return answer;
}
