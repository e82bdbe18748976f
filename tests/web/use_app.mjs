// The local app in Chromium, as somebody uses it: uploads, chooses, corrects, runs, looks, downloads.
// node use_app.mjs ADDRESS CLIP DAMAGED TOO_LARGE OUTPUT_FOLDER [PICTURES_PREFIX]
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { collectErrors, withBrowser } from "./chromium.mjs";

const [address, clip, damaged, tooLarge, output, pictures] = process.argv.slice(2);
const found = { errors: [], requests: [], absent: [] };

async function open(browser, options) {
  const context = await browser.newContext({ viewport: { width: 1200, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  collectErrors(page, found.errors);
  page.on("request", (request) => found.requests.push(request.url()));
  page.on("response", (answer) => {
    if (answer.status() === 404) found.absent.push(new URL(answer.url()).pathname);
  });
  await page.goto(address);
  await page.waitForSelector("#bundled button");
  return page;
}

const picture = async (page, name) => {
  if (pictures) await page.screenshot({ path: `${pictures}_${name}.png`, fullPage: true });
};
const upload = (page, file) => page.setInputFiles("#file", file);
const idle = (page) => page.waitForSelector("#work", { state: "hidden" });
const press = async (page, kind) => {
  await page.click(`[data-kind=${kind}]`);
  await page.waitForSelector("#work:not([hidden])");
};

await withBrowser(async (browser) => {
  const page = await open(browser, { colorScheme: "light" });
  await upload(page, tooLarge);
  found.tooLarge = await page.textContent("#start-error:not(:empty)");

  await upload(page, damaged);
  found.damaged = await page.textContent("#start-error:not(:empty):has-text('damaged')");

  await upload(page, clip);
  await page.waitForSelector("#job:not([hidden])");
  await page.fill("[name='--smooth']", "soft");
  await page.click("[data-kind=find]");
  found.besideSmoothing = await page.textContent("[name='--smooth'] + .error");
  await page.fill("[name='--smooth']", "");
  await page.selectOption("[name='--world']", "--world");
  await press(page, "find");
  await page.waitForSelector("#people:not([hidden])");
  await idle(page);
  found.people = await page.locator("#sheet li").count();

  // Person 2 alone, and somebody new by mouse, who gets moved by keyboard.
  for (const box of await page.locator("#sheet input").all()) {
    if ((await box.getAttribute("value")) !== "2") await box.uncheck();
  }
  const frame = await page.locator("#frame").boundingBox();
  const at = (x, y) => [frame.x + x * frame.width, frame.y + y * frame.height];
  await page.locator("#frame").scrollIntoViewIfNeeded();
  Object.assign(frame, await page.locator("#frame").boundingBox());
  await page.mouse.move(...at(0.02, 0.05));
  await page.mouse.down();
  await page.mouse.move(...at(0.1, 0.3), { steps: 4 });
  await page.mouse.up();
  const drawn = page.locator(".box.edited");
  found.drawnAs = Number(await drawn.getAttribute("data-number"));
  const before = await drawn.boundingBox();
  await drawn.press("ArrowRight");
  found.movedRight = (await page.locator(".box.edited").boundingBox()).x > before.x;
  await picture(page, "people");

  await page.locator("#formats input[value=glb]").check();
  await press(page, "run");
  await page.waitForFunction(() => document.querySelector("#rate").textContent.includes("starting"));
  const start = Date.now();
  await page.click("#cancel");
  await idle(page);
  found.cancelledAfter = (Date.now() - start) / 1000;
  found.outcome = await page.textContent("#outcome");
  await page.click("#undo");
  await press(page, "run");

  // Meanwhile somebody else looks, and the first one closes and opens the page.
  const other = await open(browser, { viewport: { width: 390, height: 844 }, colorScheme: "dark", hasTouch: true });
  await other.click("#jobs button >> nth=0");
  await other.waitForSelector("#work:not([hidden])");
  await picture(other, "phone");
  await page.reload();
  await page.waitForSelector("#work:not([hidden])");
  await Promise.all([idle(page), idle(other)]);
  await Promise.all([page, other].map((one) => one.waitForSelector("#result:not([hidden])")));
  found.table = await page.locator("#table tbody tr").allTextContents();
  found.command = await page.textContent("#command");
  found.overlaySeconds = await page
    .locator("#overlay video")
    .evaluate((video) => new Promise((done) => (video.duration ? done(video.duration) : (video.onloadedmetadata = () => done(video.duration)))));

  const viewer = await (await page.$("#viewer")).contentFrame();
  await viewer.waitForSelector("body:not([aria-busy]) canvas");
  await viewer.click("[data-do=last]");
  for (let tries = 0; tries < 100 && !found.viewerFrame; tries++) {
    await page.waitForTimeout(50);
    found.viewerFrame = await viewer.evaluate(() => viewer.state.values.frame);
  }
  await picture(page, "result");
  await picture(other, "phone_result");
  found.widthOnPhone = await other.evaluate(() => document.documentElement.scrollWidth);

  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#zip")]);
  await download.saveAs(path.join(output, "results.zip"));

  // Two browsers: what one deletes, after asking, leaves the other's list.
  const count = await other.locator("#jobs li").count();
  await page.click("#delete");
  await page.click("#ask [value=no]");
  found.keptAfterNo = (await page.locator("#jobs li").count()) === count;
  found.deleted = `/api/jobs/${new URL(page.url()).hash.slice(1)}`;
  await page.click("#delete");
  await page.click("#ask [value=yes]");
  await other.waitForFunction((count) => document.querySelectorAll("#jobs li").length === count - 1, count);
});
await writeFile(path.join(output, "found.json"), JSON.stringify(found));
