// Enlarging and moving what lies in a box: wheel, keys, fingers.

const MOST = 24;

export class Zoom {
  constructor(stage, inner, signal) {
    this.stage = stage;
    this.inner = inner;
    this.fingers = new Map();
    this.reset();
    const hear = (kind, call, more = {}) => stage.addEventListener(kind, call, { signal, ...more });
    hear("wheel", (event) => this.wheel(event), { passive: false });
    hear("pointerdown", (event) => this.down(event));
    hear("pointermove", (event) => this.move(event));
    for (const kind of ["pointerup", "pointercancel"]) hear(kind, (event) => this.fingers.delete(event.pointerId));
    hear("dblclick", () => (this.scale > 1 ? this.reset() : this.by(3)));
  }

  reset() {
    this.scale = 1;
    this.x = 0;
    this.y = 0;
    this.draw();
  }

  draw() {
    const box = this.stage.getBoundingClientRect();
    const room = (length) => (length * (this.scale - 1)) / 2;
    this.x = Math.max(-room(box.width), Math.min(room(box.width), this.x));
    this.y = Math.max(-room(box.height), Math.min(room(box.height), this.y));
    this.inner.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    this.stage.classList.toggle("zoomed", this.scale > 1);
  }

  /** Enlarges by a factor around a point that stays where it is; by default the middle. */
  by(factor, clientX, clientY) {
    const box = this.stage.getBoundingClientRect();
    const px = (clientX ?? box.left + box.width / 2) - box.left - box.width / 2;
    const py = (clientY ?? box.top + box.height / 2) - box.top - box.height / 2;
    const next = Math.max(1, Math.min(MOST, this.scale * factor));
    const real = next / this.scale;
    this.x = px - (px - this.x) * real;
    this.y = py - (py - this.y) * real;
    this.scale = next;
    this.draw();
  }

  wheel(event) {
    event.preventDefault();
    this.by(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), event.clientX, event.clientY);
  }

  down(event) {
    if (event.button !== 0) return;
    this.stage.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  }

  move(event) {
    const before = this.fingers.get(event.pointerId);
    if (!before) return;
    const now = { x: event.clientX, y: event.clientY };
    const other = [...this.fingers].find(([id]) => id !== event.pointerId)?.[1];
    this.fingers.set(event.pointerId, now);
    if (other) {
      const apart = (a) => Math.hypot(a.x - other.x, a.y - other.y) || 1;
      this.by(apart(now) / apart(before), (now.x + other.x) / 2, (now.y + other.y) / 2);
    } else {
      this.x += now.x - before.x;
      this.y += now.y - before.y;
      this.draw();
    }
  }

  key(event) {
    const act = { "+": () => this.by(1.5), "=": () => this.by(1.5), "-": () => this.by(1 / 1.5), 0: () => this.reset() }[event.key];
    act?.();
    return Boolean(act);
  }
}
