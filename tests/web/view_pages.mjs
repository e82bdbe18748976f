// The viewer's pages in Chromium, opened from the disk: what they show and do, as JSON.
// node view_pages.mjs FOLDER OUTPUT.json [PICTURES_PREFIX]
// FOLDER has whole.html (everything in it), alone.html (its files are not there) and photo.html.
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { withFiles } from "./chromium.mjs";

const [folder, output, pictures] = process.argv.slice(2);
const DESKTOP = { viewport: { width: 900, height: 640 }, colorScheme: "dark" };
const PHONE = { viewport: { width: 390, height: 844 }, colorScheme: "light", hasTouch: true };
const found = {};

const ready = (page) => page.waitForSelector("body:not([aria-busy])");
const values = (page) => page.evaluate(() => viewer.state.values);
const frameOf = async (page) => (await values(page)).frame;
const picture = async (page, name) => {
  if (pictures) await page.screenshot({ path: `${pictures}_${name}.png` });
};

// The brightness in the middle of the video's picture.
const shade = (page) =>
  page.evaluate(() => {
    const canvas = new OffscreenCanvas(1, 1);
    const context = canvas.getContext("2d");
    const video = document.querySelector("video");
    context.drawImage(video, video.videoWidth / 2, video.videoHeight / 2, 1, 1, 0, 0, 1, 1);
    return context.getImageData(0, 0, 1, 1).data[0];
  });

// Asks until it is so; the page forbids what playwright's own waiting is made of.
async function until(page, question) {
  for (let tries = 0; tries < 400 && !(await page.evaluate(question)); tries++) {
    await page.waitForTimeout(50);
  }
}

async function settled(page) {
  await until(page, () => {
    const video = document.querySelector("video");
    return !video.seeking && video.readyState > 1;
  });
  return { frame: await frameOf(page), shade: await shade(page) };
}

// How far out in the canvas people get at some frames: 1 is its edge.
async function framing(page) {
  return page.evaluate(() => {
    const { scene, state } = viewer;
    const place = scene.views.orbit.position.clone();
    const outermost = [0, 6, 14, 29].map((frame) => {
      state.set({ frame });
      scene.draw();
      let most = 0;
      for (const figure of scene.figures.filter(({ group }) => group.visible)) {
        for (const { places } of figure.vertices()) {
          for (let at = 0; at < places.length; at += 3) {
            place.fromArray(places, at).applyMatrix4(scene.root.matrixWorld).project(scene.views.orbit);
            most = Math.max(most, Math.abs(place.x), Math.abs(place.y));
          }
        }
      }
      return most;
    });
    state.set({ frame: 0 });
    return outermost;
  });
}

async function play(page) {
  const drawn = () => viewer.scene.figures[0].group.children.filter((mesh) => mesh.visible && mesh.isMesh).length;
  const draws = () => viewer.scene.renderer.info.render.frame;
  await page.click("[data-do=play]");
  const meshes = await page.evaluate(drawn);
  // In a pause, the frame is the one that the video shows, which may be a little earlier.
  await until(page, () => viewer.state.get("frame") >= 7);
  await page.keyboard.press("Space");
  await page.waitForTimeout(300);
  const seen = { ...(await settled(page)), playing: (await values(page)).playing };
  const before = await page.evaluate(draws);
  await page.waitForTimeout(300);
  const idle = (await page.evaluate(draws)) - before;
  return { ...seen, meshes, idle };
}

// How far the coarse surface's vertices are from those of the surface as it is, metres.
async function coarse(page) {
  return page.evaluate(() => {
    const { scene } = viewer;
    const [figure] = scene.figures;
    figure.refine(true);
    scene.draw();
    const { parts, positions, index } = figure.coarse;
    const [here, there] = [scene.views.orbit.position.clone(), scene.views.orbit.position.clone()];
    let away = 0;
    for (const { mesh, points, start } of parts) {
      points.forEach((point, k) => {
        mesh.getVertexPosition(point, here).applyMatrix4(mesh.matrixWorld);
        away = Math.max(away, here.distanceTo(there.fromBufferAttribute(positions, start + k)));
      });
    }
    const shown = figure.coarse.mesh.geometry.drawRange.count / index.count;
    figure.refine(false);
    return { parts: parts.map(({ mesh }) => mesh.name), away, shown };
  });
}

async function seek(page) {
  const seen = [];
  const press = async (...keys) => {
    for (const key of keys) await page.keyboard.press(key);
    seen.push(await settled(page));
  };
  await press("Home");
  await press("ArrowRight", "ArrowRight", "ArrowRight");
  await press("Shift+ArrowRight");
  await press("ArrowLeft");
  await press("End");
  const ruler = await page.locator("#ruler").boundingBox();
  await page.mouse.click(ruler.x + ruler.width * (10.5 / 30), ruler.y + ruler.height / 2);
  seen.push(await settled(page));
  return seen;
}

// What is visible of the first person, after every button that chooses or toggles was clicked.
async function controls(page) {
  const seen = {};
  const look = async (name) => {
    const [state, shown] = await page.evaluate(() => {
      viewer.scene.draw();
      const { group } = viewer.scene.figures[0];
      const drawn = viewer.scene.renderer.info.render.triangles;
      const names = group.children.filter((mesh) => mesh.visible && mesh.isMesh).map((m) => m.name || "bones");
      return [viewer.state.values, { group: group.visible, names, drawn }];
    });
    seen[name] = { state, shown };
  };
  await look("start");
  for (const [group, options] of Object.entries({
    view: ["camera", "picture", "orbit"], surface: ["body", "none", "clothes"],
    motion: ["raw", "both", "smoothed"],
  })) {
    for (const option of options) {
      await page.click(`[data-choose=${group}] [value=${option}]`);
      await look(`${group} ${option}`);
    }
  }
  for (const name of ["skeleton", "floor", "follow", "loop", "sound", "dark"]) {
    await page.click(`[data-toggle=${name}]`);
    await look(name);
    await page.click(`[data-toggle=${name}]`);
  }
  await page.click(".person .eye");
  await look("hidden");
  await page.click(".person .eye");
  await page.fill(".person input", "#123456");
  await look("colored");
  await page.selectOption("#speed", "0.25");
  await page.selectOption("#joint", { label: "Right elbow" });
  await page.selectOption("#quantity", "angle");
  await look("chosen");
  seen.value = await page.locator("#values b").first().textContent();
  seen.color = await page.evaluate(() => viewer.scene.figures[0].body.material.color.getHexString());
  await page.click("#help-open");
  seen.help = await page.locator("#help[open]").count();
  await page.keyboard.press("Escape");
  return seen;
}

async function geometry(page, frames) {
  return page.evaluate((wanted) => {
    const base64 = (array) => {
      const bytes = new Uint8Array(array.buffer);
      let text = "";
      for (let i = 0; i < bytes.length; i += 32768) {
        text += String.fromCharCode(...bytes.subarray(i, i + 32768));
      }
      return btoa(text);
    };
    viewer.state.set({ motion: "smoothed" });
    const { joints } = viewer.clip;
    const series = (quantity) =>
      Array.from(viewer.chart.series.of(viewer.clip.people[0], "smoothed", joints.indexOf("right_wrist"), quantity));
    return {
      series: { across: series("across"), distance: series("distance"), speed: series("speed") },
      frames: wanted.map((frame) => {
        viewer.state.set({ frame });
        viewer.scene.draw();
        const meshes = viewer.scene.figures[0].vertices();
        return { frame, meshes: meshes.map(({ name, places }) => ({ name, places: base64(places) })) };
      }),
    };
  }, frames);
}

// Where the camera's view shows joints of the first person, in pixels of the picture.
async function recorded(page, frame, joints) {
  return page.evaluate(([frame, names]) => {
    const { clip, scene, state } = viewer;
    const before = state.get("view");
    state.set({ view: "camera", frame });
    scene.draw();
    const { clientWidth: width, clientHeight: height } = scene.panel;
    const [marginY, marginX] = scene.gate.style.inset.split(" ").map(parseFloat);
    const place = scene.views.orbit.position.clone();
    const pixels = names.map((name) => {
      const bone = scene.figures[0].bones[clip.joints.indexOf(name)];
      place.setFromMatrixPosition(bone.matrixWorld).project(scene.views.recorded);
      const scale = clip.size[0] / (width - 2 * marginX);
      const [x, y] = [(0.5 + place.x / 2) * width - marginX, (0.5 - place.y / 2) * height - marginY];
      return [x * scale - 0.5, y * scale - 0.5];
    });
    state.set({ view: before });
    return pixels;
  }, [frame, joints]);
}

async function downloads(page) {
  await page.click("#downloads-open");
  const saved = {};
  for (const button of await page.locator("#downloads .file button").all()) {
    const [download] = await Promise.all([page.waitForEvent("download"), button.click()]);
    const content = await readFile(await download.path());
    saved[download.suggestedFilename()] = content.toString("base64");
  }
  await picture(page, "downloads");
  await page.keyboard.press("Escape");
  return saved;
}

const overflow = (page) =>
  page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

await withFiles(async (open, errors, requests) => {
  const file = (name) => path.join(folder, name);
  const whole = await open(file("whole.html"), DESKTOP);
  await ready(whole);
  await picture(whole, "desktop");
  found.first = await values(whole);
  found.framing = { desktop: await framing(whole) };
  found.played = await play(whole);
  found.sought = await seek(whole);
  found.geometry = await geometry(whole, [0, 7, 29]);
  found.recorded = await recorded(whole, 7, ["neck", "right_wrist", "left_ankle"]);
  found.coarse = await coarse(whole);
  found.controls = await controls(whole);
  found.downloads = await downloads(whole);
  await whole.context().close();
  found.errors = [...errors];

  const phone = await open(file("whole.html"), PHONE);
  await ready(phone);
  await picture(phone, "phone");
  found.framing.phone = await framing(phone);
  found.phone = { overflow: await overflow(phone), dark: (await values(phone)).dark };
  await phone.tap("[data-do=play]");
  found.phone.playing = (await values(phone)).playing;
  await phone.context().close();

  const photo = await open(file("photo.html"), PHONE);
  await ready(photo);
  await picture(photo, "photo");
  found.photo = await photo.evaluate(() => ({
    image: document.querySelector(".picture img").naturalWidth,
    disabled: document.querySelector("[data-do=play]").disabled,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  }));
  await photo.context().close();
  found.errors = [...errors];

  const alone = await open(file("alone.html"), DESKTOP);
  await ready(alone);
  await picture(alone, "alone");
  found.alone = { message: await alone.locator(".missing p").textContent() };
  await alone.click("[data-do=play]");
  await until(alone, () => viewer.state.get("frame") > 2);
  found.alone.frame = await frameOf(alone);
  found.alone.links = await alone.evaluate(() =>
    Array.from(document.querySelectorAll("#downloads a"), (link) => link.getAttribute("href")));
  found.requests = requests;
});
await writeFile(output, JSON.stringify(found));
