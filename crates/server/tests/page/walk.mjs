// Walks through the page as a visitor does, against a server that runs and has no detector `walk` yet.
//
//   npm install playwright-core axe-core       in the folder from which it is started
//   node walk.mjs http://127.0.0.1:PORT/ IMAGES SHOTS
//
// IMAGES holds good/, new/ (good parts too) and flaws/. SHOTS is made and gets a picture of each view.
// CHROMIUM names the browser, /usr/bin/chromium by default.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";

const require = createRequire(path.join(process.cwd(), "walk.cjs"));
const { chromium } = require("playwright-core");
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const [url, images, shots] = process.argv.slice(2);
if (!shots) throw new Error("usage: node walk.mjs URL IMAGES SHOTS");
fs.mkdirSync(shots, { recursive: true });

const NAME = "walk";
const JOB = 180_000;
const VIEWS = ["live", "review", "threshold", "history", "new"];
const address = (view) => `${url.replace(/\/$/, "")}/#/${NAME}/${view}`;
let passed = 0;
let failed = 0;

async function step(name, work) {
  try {
    await work();
    passed += 1;
    console.log(`ok: ${name}`);
  } catch (fault) {
    failed += 1;
    console.log(`failed: ${name}: ${fault.message.split("\n").slice(0, 6).join(" | ")}`);
    await page.screenshot({ path: path.join(shots, `failed-${failed}.png`) }).catch(() => {});
  }
}

/** Files under names that tell where they are from. */
function files(kind, most = Infinity) {
  const folder = path.join(images, kind);
  const names = fs.readdirSync(folder).filter((f) => /\.(png|jpe?g)$/i.test(f)).sort().slice(0, most);
  const type = (f) => (/png$/i.test(f) ? "image/png" : "image/jpeg");
  return names.map((f) => ({ name: `${kind}-${f}`, mimeType: type(f), buffer: fs.readFileSync(path.join(folder, f)) }));
}

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: "en-GB" });
const page = await context.newPage();
const complaints = [];
page.on("pageerror", (fault) => complaints.push(String(fault)));
page.on("console", (message) => {
  // A server with too much to do answers 429; the page waits and tries again.
  if (message.type() === "error" && !message.text().includes("429")) complaints.push(message.text());
});

const api = (at) => page.evaluate(async (p) => (await fetch(p)).json(), `/api/${at}`);
const detail = () => api(`detectors/${NAME}`);
const shot = (name) => page.screenshot({ path: path.join(shots, `${name}.png`), fullPage: true });

/** Waits until `read` gives what is wanted. */
async function until(what, read, ms = 15_000) {
  const end = Date.now() + ms;
  for (;;) {
    const found = await read();
    if (found) return found;
    if (Date.now() > end) throw new Error(`waited for: ${what}`);
    await page.waitForTimeout(150);
  }
}

async function fits(width) {
  await page.setViewportSize({ width, height: 800 });
  for (const view of VIEWS) {
    await page.goto(address(view));
    await page.waitForTimeout(300);
    const [inner, outer] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
    assert.ok(inner <= outer, `${view} is ${inner} wide in ${outer}`);
  }
}

async function drawBox() {
  await page.getByRole("button", { name: "Box" }).click();
  const box = await page.locator("canvas.drawing").boundingBox();
  const at = (x, y) => [box.x + box.width * x, box.y + box.height * y];
  await page.mouse.move(...at(0.42, 0.4));
  await page.mouse.down();
  await page.mouse.move(...at(0.58, 0.6), { steps: 4 });
  await page.mouse.up();
  await until("something drawn", () => page.getByRole("button", { name: "Clear" }).isEnabled());
}

const shownName = () => page.locator(".desk h2").textContent();
const pending = async () => (await detail()).pending;

async function judgeOne(key, before) {
  const name = await shownName();
  await page.keyboard.press(key);
  await until("the next part", async () => (await pending()) === before + 1 && (await page.locator(".desk h2").allTextContents())[0] !== name);
}

/** Moves to a part whose name begins so. */
async function find(kind) {
  for (let tries = 0; tries < 60; tries += 1) {
    if ((await shownName()).startsWith(kind)) return;
    await page.keyboard.press("ArrowRight");
  }
  throw new Error(`no part of ${kind} in Review`);
}

const news = files("new");
const flaws = files("flaws");
const goods = files("good");

await step("the page opens", async () => {
  await page.goto(url);
  await page.locator(".make input").waitFor();
  await shot("home");
});

await step("a detector is made", async () => {
  await page.locator(".make input").fill(NAME);
  await page.locator(".make button").click();
  await page.locator(".drop").waitFor();
  assert.equal((await detail()).state, "empty");
});

await step("good images are handed in", async () => {
  await page.locator(".drop input[type=file]:not([webkitdirectory])").setInputFiles(goods);
  await until("all good images", async () => (await detail()).good === goods.length, 60_000);
  await until("their tiles", async () => (await page.locator(".goods .tile").count()) === Math.min(60, goods.length));
});

await step("the detector learns", async () => {
  await page.getByRole("button", { name: "Learn", exact: true }).click();
  await until("the state ready", async () => (await detail()).state === "ready", JOB);
  await page.locator("a.huge").waitFor();
  await until("what was chosen", async () => (await page.locator("#step-about").count()) === 1);
  await shot("new");
});

await step("an odd image is left out and taken back", async () => {
  if (!(await page.locator(".odd .tile").count())) return;
  const out = async (wanted) => {
    await page.locator(".odd .tile").first().click();
    await until("the count", async () => (await api(`detectors/${NAME}/good`)).images.filter((i) => i.excluded).length === wanted);
    await until("the mark", async () => (await page.locator(".odd .tile").first().getAttribute("aria-pressed")) === String(wanted === 1));
  };
  await out(1);
  await out(0);
});

await step("Live judges what is dropped", async () => {
  await page.locator("a.huge").click();
  await page.locator(".bar input[type=file]:not([webkitdirectory])").setInputFiles([...news, ...flaws]);
  const all = news.length + flaws.length;
  await until("all parts", async () => (await detail()).parts === all, JOB);
  await until("a tile each", async () => (await page.locator(".tiles .tile").count()) === all);
  await until("the counter", async () => (await page.locator(".counters dd").first().textContent()) === String(all));
  assert.match(await page.locator(".board .verdict").textContent(), /^(OK|NG)$/);
  await shot("live");
});

await step("only stopped parts can be shown", async () => {
  const { stopped } = await detail();
  await page.locator(".segments label").nth(1).click();
  await until("stopped tiles", async () => (await page.locator(".tiles .tile.flaw").count()) === Math.min(48, stopped) && (await page.locator(".tiles .tile.good").count()) === 0);
  await page.locator(".segments label").nth(0).click();
  await until("all tiles", async () => (await page.locator(".tiles .tile").count()) === Math.min(48, news.length + flaws.length));
});

await step("a part opens, enlarges and closes by keys", async () => {
  await page.locator(".tiles .tile").first().focus();
  await page.keyboard.press("Enter");
  await page.locator("dialog.detail[open]").waitFor();
  await page.keyboard.press("+");
  assert.match(await page.locator(".inner").evaluate((e) => e.style.transform), /scale\(1\.5\)/);
  await page.keyboard.press("m");
  assert.equal(await page.evaluate(() => document.documentElement.classList.contains("nomap")), true);
  await page.keyboard.press("m");
  await page.keyboard.press("0");
  await page.keyboard.press("ArrowRight");
  await page.waitForTimeout(400);
  await page.screenshot({ path: path.join(shots, "detail.png") });
  await page.keyboard.press("Escape");
  await page.locator("dialog").waitFor({ state: "detached" });
});

await step("a stopped part is compared with the good place that it looks most like", async () => {
  await page.locator(".tiles .tile", { hasText: "NG" }).first().click();
  await page.locator("dialog.detail[open]").waitFor();
  await page.keyboard.press("c");
  await page.locator(".compared canvas").nth(1).waitFor();
  await page.screenshot({ path: path.join(shots, "compared.png") });
  await page.keyboard.press("Escape");
  await page.locator("dialog").waitFor({ state: "detached" });
});

await step("Review takes a good part, and takes it back", async () => {
  await page.goto(address("review"));
  await page.locator(".desk h2").waitFor();
  await find("new-");
  const name = await shownName();
  await judgeOne("g", 0);
  await page.keyboard.press("u");
  await until("nothing pending", async () => (await pending()) === 0);
  await until("the part back", async () => (await shownName()) === name);
  await judgeOne("g", 0);
});

await step("Review takes a flaw with a new kind and a drawn box", async () => {
  await find("flaws-");
  await drawBox();
  await shot("review");
  await page.keyboard.press("n");
  await page.keyboard.type("walked");
  await page.keyboard.press("Enter");
  await until("the kind", async () => (await page.locator('[data-kind="walked"]').getAttribute("aria-pressed")) === "true");
  await judgeOne("f", 1);
  const { parts } = await api(`detectors/${NAME}/parts?judged=true&limit=50`);
  const flaw = parts.find((p) => p.judgement.label === "flaw");
  assert.deepEqual([flaw.judgement.kind, flaw.judgement.mask], ["walked", true]);
});

await step("Review takes more flaws by keys alone", async () => {
  const more = Math.min(4, flaws.length - 1);
  for (let n = 0; n < more; n += 1) {
    await find("flaws-");
    const chip = page.locator('[data-kind="walked"]');
    if ((await chip.getAttribute("aria-pressed")) !== "true") await page.keyboard.press(await chip.getAttribute("aria-keyshortcuts"));
    await judgeOne("f", 2 + n);
  }
  await until("the bar", async () => (await page.locator(".learn strong").first().textContent()).startsWith(`${2 + more} judgements`));
});

await step("it learns from them and tells before and after", async () => {
  const before = (await detail()).version;
  await page.locator(".learn .main").click();
  await page.locator(".learn .result .notice").waitFor({ timeout: JOB });
  if (await page.locator(".learn .result .warn").count()) {
    await page.getByRole("button", { name: "Take it anyway" }).click();
    await page.locator(".learn .result .fine").waitFor({ timeout: JOB });
  }
  assert.match(await page.locator(".learn .result").textContent(), /Stopped \d+ of \d+ good parts, now \d+\./);
  const after = await detail();
  assert.ok(after.version > before, `version ${before} became ${after.version}`);
  assert.equal(after.pending, 0);
  await until("an idle bar", async () => (await page.locator(".learn .main").isDisabled()));
  await shot("learned");
});

await step("the threshold moves with its sentence", async () => {
  await page.goto(address("threshold"));
  const slider = page.getByRole("slider", { name: "Threshold" });
  await slider.focus();
  const said = await slider.getAttribute("aria-valuetext");
  assert.match(await page.locator(".threshold .says").textContent(), /Stops \d+ of \d+ good parts/);
  for (let n = 0; n < 60; n += 1) await page.keyboard.press("ArrowLeft");
  assert.notEqual(await slider.getAttribute("aria-valuetext"), said);
  const wanted = Number(await page.getByLabel("Exact value").inputValue());
  await page.getByRole("button", { name: "Apply" }).click();
  await until("the value in use", async () => Math.abs((await api(`detectors/${NAME}/threshold`)).value - wanted) < Math.abs(wanted) * 1e-3 + 1e-6);
  await shot("threshold");
});

await step("one false alarm in a hundred can be asked for", async () => {
  const before = (await detail()).version;
  await page.getByRole("button", { name: "At most 1 % false alarms" }).click();
  await until("a new version", async () => (await detail()).version > before);
});

await step("an older version comes back", async () => {
  await page.goto(address("review"));
  const row = page.locator('.versions li:not(.current)').last();
  await row.waitFor();
  const version = Number(await row.getAttribute("data-version"));
  await row.getByRole("button").click();
  await until("the version in use", async () => (await api(`detectors/${NAME}/versions`)).current === version);
  await page.locator(`.versions li.current[data-version="${version}"]`).waitFor();
});

await step("all is still there after a reload", async () => {
  const before = await detail();
  await page.goto(address("live"));
  await page.reload();
  const all = news.length + flaws.length;
  await until("the tiles", async () => (await page.locator(".tiles .tile").count()) === Math.min(48, all));
  const after = await detail();
  for (const key of ["version", "good", "defects", "pending", "parts", "stopped"]) assert.equal(after[key], before[key], key);
});

await step("History shows the parts and gives files", async () => {
  await page.goto(address("history"));
  await until("the sum", async () => /\d+ parts, \d+ stopped/.test(await page.locator(".charts").textContent()));
  for (const link of await page.locator(".exports a").all()) {
    const answer = await context.request.get(new URL(await link.getAttribute("href"), url).href);
    assert.equal(answer.status(), 200, await link.getAttribute("href"));
  }
  await shot("history");
});

await step("nothing is wider than a phone, a desk or a wall", async () => {
  for (const width of [360, 1280, 3840]) await fits(width);
  await page.setViewportSize({ width: 1280, height: 800 });
});

await step("the page speaks German", async () => {
  const other = await browser.newContext({ locale: "de-DE" });
  const german = await other.newPage();
  await german.goto(address("history"));
  await german.getByRole("link", { name: "Verlauf" }).waitFor();
  assert.equal(await german.evaluate(() => document.documentElement.lang), "de");
  await other.close();
});

for (const colorScheme of ["light", "dark"]) {
  // The page's own rules forbid foreign scripts: only this context lets the checker in.
  const open = await browser.newContext({ bypassCSP: true, colorScheme, locale: "en-GB", reducedMotion: "reduce", viewport: { width: 1280, height: 800 } });
  const checked = await open.newPage();
  for (const view of ["", ...VIEWS, "detail"]) {
    await step(`no serious fault of access in ${view || "home"}, ${colorScheme}`, async () => {
      if (view !== "detail") await checked.goto(view ? address(view) : `${url}#/`);
      else {
        await checked.goto(address("live"));
        await checked.locator(".tiles .tile").first().click();
      }
      await checked.waitForTimeout(600);
      await checked.addScriptTag({ content: axe });
      const { violations } = await checked.evaluate(() => window.axe.run());
      const grave = violations.filter((v) => ["serious", "critical"].includes(v.impact));
      assert.deepEqual(grave.map((v) => `${v.id}: ${v.nodes.map((n) => n.target.join(" ")).slice(0, 3).join(", ")}`), []);
    });
  }
  await open.close();
}

await step("the console stayed clean", async () => assert.deepEqual(complaints, []));

await browser.close();
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed ? 1 : 0;
