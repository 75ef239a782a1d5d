// Drawing where the flaw is: a brush or a box over the picture, given as a mask.

const MOST = 1024;

export class Drawing {
  constructor(part, signal, changed) {
    const [height, width] = part.size;
    const scale = Math.min(1, MOST / Math.max(height, width));
    this.scale = scale;
    this.canvas = document.createElement("canvas");
    this.canvas.className = "drawing";
    this.canvas.width = Math.max(1, Math.round(width * scale));
    this.canvas.height = Math.max(1, Math.round(height * scale));
    this.pen = this.canvas.getContext("2d");
    this.strokes = [];
    this.tool = "brush";
    this.size = 24;
    this.changed = changed;
    this.listen(signal);
  }

  listen(signal) {
    const hear = (kind, call) => this.canvas.addEventListener(kind, call, { signal });
    hear("pointerdown", (event) => this.down(event));
    hear("pointermove", (event) => this.move(event));
    for (const kind of ["pointerup", "pointercancel"]) hear(kind, () => this.up());
  }

  /** Where the pointer is on the canvas, which lies in its box with room at two sides. */
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const fit = Math.min(box.width / this.canvas.width, box.height / this.canvas.height);
    const x = (event.clientX - box.left - (box.width - this.canvas.width * fit) / 2) / fit;
    const y = (event.clientY - box.top - (box.height - this.canvas.height * fit) / 2) / fit;
    return { x, y, fit };
  }

  down(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    const { x, y, fit } = this.at(event);
    this.now = this.tool === "box" ? { box: [x, y, x, y] } : { width: this.size / fit, points: [[x, y]] };
    this.draw();
  }

  move(event) {
    if (!this.now) return;
    const { x, y } = this.at(event);
    if (this.now.box) this.now.box.splice(2, 2, x, y);
    else this.now.points.push([x, y]);
    this.draw();
  }

  up() {
    if (!this.now) return;
    const [a, b, c, d] = this.now.box ?? [0, 0, 9, 9];
    if (Math.abs(a - c) > 2 && Math.abs(b - d) > 2) this.strokes.push(this.now);
    this.now = null;
    this.draw();
    this.changed();
  }

  /** Boxes in pixels of the image, as the detector found them. */
  add(regions) {
    for (const r of regions) {
      this.strokes.push({ box: [r.left, r.top, r.left + r.width, r.top + r.height].map((v) => v * this.scale) });
    }
    this.draw();
    this.changed();
  }

  back() {
    this.strokes.pop();
    this.draw();
    this.changed();
  }

  clear() {
    this.strokes = [];
    this.draw();
    this.changed();
  }

  get empty() {
    return this.strokes.length === 0;
  }

  paint(pen, colour) {
    pen.fillStyle = colour;
    pen.strokeStyle = colour;
    pen.lineCap = "round";
    pen.lineJoin = "round";
    for (const stroke of this.now ? [...this.strokes, this.now] : this.strokes) {
      if (stroke.box) box(pen, stroke.box);
      else line(pen, stroke);
    }
  }

  draw() {
    this.pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.paint(this.pen, "#ff2fd6");
  }

  /** The mask as base64 of a PNG, white where the flaw is; null where nothing was drawn. */
  mask() {
    if (this.empty) return null;
    const canvas = document.createElement("canvas");
    canvas.width = this.canvas.width;
    canvas.height = this.canvas.height;
    const pen = canvas.getContext("2d");
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    this.paint(pen, "#fff");
    return canvas.toDataURL("image/png").split(",")[1];
  }
}

function box(pen, [a, b, c, d]) {
  pen.fillRect(Math.min(a, c), Math.min(b, d), Math.abs(c - a), Math.abs(d - b));
}

function line(pen, { width, points }) {
  const [[x, y], ...rest] = points;
  pen.lineWidth = width;
  pen.beginPath();
  pen.moveTo(x, y);
  pen.lineTo(x + 0.01, y);
  for (const [nx, ny] of rest) pen.lineTo(nx, ny);
  pen.stroke();
}
