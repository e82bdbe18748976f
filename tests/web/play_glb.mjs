// three.js in Chromium plays a .glb: what it found, and every vertex at some times, as JSON.
// node play_glb.mjs FILE.glb OUTPUT.json TIME,TIME,... [PICTURES_PREFIX]
import { readFile, writeFile } from "node:fs/promises";
import { ORIGIN, withPage } from "./chromium.mjs";

const [file, output, times, pictures] = process.argv.slice(2);
const character = await readFile(file);
const answer = async (name) => (name === "/character.glb" ? character : null);

const found = await withPage({ width: 640, height: 720 }, answer, async (page) => {
  await page.goto(`${ORIGIN}/play_glb.html`);
  await page.waitForFunction("window.ready");
  const about = await page.evaluate("about()");
  about.frames = [];
  for (const time of times.split(",").map(Number)) {
    await page.evaluate((t) => window.seek(t), time);
    about.frames.push({ time, vertices: await page.evaluate("vertices()") });
    for (const view of pictures ? ["body", "face", "hand"] : []) {
      await page.evaluate((v) => window.draw(v), view);
      await page.screenshot({ path: `${pictures}_${time.toFixed(2)}_${view}.png` });
    }
  }
  return about;
});
await writeFile(output, JSON.stringify(found));
