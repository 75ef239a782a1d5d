// What the server tells while the page is open.

export const bus = new EventTarget();

let source = null;
let lost = false;

function announce(kind, detail) {
  bus.dispatchEvent(new CustomEvent(kind, { detail }));
}

function pass(kind) {
  source.addEventListener(kind, (event) => announce(kind, event.data ? JSON.parse(event.data) : null));
}

export function connected() {
  return source !== null && !lost;
}

export function connect() {
  source?.close();
  source = new EventSource("/api/events");
  for (const kind of ["part", "job", "version", "detectors"]) pass(kind);
  source.addEventListener("open", () => {
    const again = lost;
    lost = false;
    announce("line", { up: true, again });
  });
  source.addEventListener("error", () => {
    const first = !lost;
    lost = true;
    if (first) announce("line", { up: false });
    // A browser gives up on some answers: then it is started anew.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
  });
}

export function disconnect() {
  source?.close();
  source = null;
}

/** Listens until the view goes. */
export function on(kind, call, signal) {
  bus.addEventListener(kind, (event) => call(event.detail), { signal });
}
