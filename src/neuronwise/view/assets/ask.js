// Asking the viewer: what is sent, and the stream of events that answers. Leaving the page ends the work.

const told = (name) => JSON.parse(document.getElementById(`${name}-json`).textContent);

class Refused extends Error {}

async function send(path, body, headers = { "content-type": "application/json" }, signal = undefined) {
  const answer = await fetch(path, { method: "POST", headers, body, signal });
  if (!answer.ok) throw new Refused((await answer.json().catch(() => ({}))).message ?? `The viewer refused this (${answer.status}).`);
  return answer;
}

/** Ask the model; `hear` gets every event on the way, the promise the result. A newer question ends the older one. */
async function ask(name, question, { hear = () => {}, signal } = {}) {
  working(`asking the model …`);
  try {
    const answer = await send(`/api/${name}`, JSON.stringify(question), undefined, signal);
    for await (const event of events(answer.body)) {
      if (event.event === "result") return event;
      if (event.event === "error") throw new Refused(event.message);
      if (event.event === "progress") working(progressOf(event), event);
      else if (event.event === "queued") working(`waiting: ${event.before} before this (${event.behind})`);
      hear(event);
    }
    throw new Refused("The viewer stopped answering; is it still running?");
  } catch (error) {
    if (error instanceof TypeError) throw new Refused("The viewer does not answer; is it still running?");
    throw error;
  } finally {
    working(null);
  }
}

/** The events of a stream: each is a line that begins with "data: ", and ends with an empty line. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  while (true) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (held + value).split("\n\n");
    held = lines.pop();
    for (const line of lines) yield JSON.parse(line.slice("data: ".length));
  }
}

/** What the viewer is doing for this page, at its top; null: nothing. */
function working(text, { done = 0, total = 0 } = {}) {
  const line = document.querySelector('[data-bar="doing"]');
  line.hidden = text === null;
  line.textContent = text ?? "";
  line.style.setProperty("--done", total ? `${(100 * done) / total}%` : "100%");
}

/** Show what went wrong beside what was asked; an aborted question is no problem. */
function problem(error, place = part("problem")) {
  if (error?.name === "AbortError") return;
  place.hidden = !error;
  place.textContent = error ? error.message : "";
}
