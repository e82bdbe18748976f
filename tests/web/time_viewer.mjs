// How fast a page of the viewer plays in Chromium without a graphics card: a line of JSON.
// node time_viewer.mjs viewer.html [SECONDS]; the machine should have nothing else to do.
import { withFiles } from "./chromium.mjs";

const [file, seconds = "10"] = process.argv.slice(2);

const found = await withFiles(async (open) => {
  const began = Date.now();
  const page = await open(file, { viewport: { width: 1440, height: 900 } });
  await page.waitForSelector("body:not([aria-busy])");
  const opened_s = (Date.now() - began) / 1000;
  await page.click("[data-do=play]");
  await page.waitForTimeout(3000); // until it has found how fine it can draw
  const played = await page.evaluate(async (duration) => {
    const { info } = viewer.scene.renderer;
    const frames = new Set();
    viewer.state.watch(["frame"], ({ frame }) => frames.add(frame));
    const [start, first] = [performance.now(), info.render.frame];
    await new Promise((done) => setTimeout(done, 1000 * duration));
    const passed = (performance.now() - start) / 1000;
    return {
      frames_a_second: frames.size / passed,
      drawn_a_second: (info.render.frame - first) / passed,
      pixel_ratio: viewer.scene.pixelRatio,
    };
  }, Number(seconds));
  return { opened_s, ...played };
});
console.log(JSON.stringify(found));
