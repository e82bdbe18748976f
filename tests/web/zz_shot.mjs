import { withFiles } from "./chromium.mjs";
const [html, prefix] = process.argv.slice(2);
await withFiles(async (open, errors) => {
  const page = await open(html, { viewport: { width: 1300, height: 800 } });
  await page.waitForSelector("body:not([aria-busy])");
  for (const [view, frame] of [["orbit", 60], ["orbit", 200], ["camera", 200]]) {
    await page.evaluate(([view, frame]) => { viewer.state.set({ view, frame }); viewer.scene.draw(); }, [view, frame]);
    await page.waitForTimeout(1500);
    await page.screenshot({ path: `${prefix}_${view}_${frame}.png` });
  }
  console.log("errors", errors);
});
