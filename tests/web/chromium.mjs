// Headless Chromium whose pages come from this folder's files; nothing is fetched from elsewhere.
import { access, readFile } from "node:fs/promises";
import { constants } from "node:fs";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

export const FOLDER = path.dirname(fileURLToPath(import.meta.url));
export const ORIGIN = "http://page.test";
const PATIENCE_MS = 120_000; // machines may be busy
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript" };

async function findChromium() {
  const folders = (process.env.PATH ?? "").split(path.delimiter);
  const places = folders.map((folder) => path.join(folder, "chromium"));
  for (const place of [process.env.CHROMIUM, ...places].filter(Boolean)) {
    try {
      await access(place, constants.X_OK);
      return place;
    } catch {}
  }
  throw new Error("no chromium on PATH; run scripts/install_web.sh or set CHROMIUM to its path");
}

export async function withBrowser(use) {
  const browser = await chromium.launch({
    executablePath: await findChromium(),
    // As on a machine without a graphics card: WebGL by SwiftShader, the rest without any GPU.
    args: [
      "--no-sandbox",
      "--use-angle=swiftshader",
      "--enable-unsafe-swiftshader",
      "--disable-gpu-compositing",
    ],
  });
  try {
    return await use(browser);
  } finally {
    await browser.close();
  }
}

// Adds everything that goes wrong on a page to `errors`, as it happens.
export function collectErrors(page, errors) {
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error") errors.push(message.text());
  });
}

// Opens pages from the disk: `use(open, errors, requests)`, where `open(file, options)` gives a page
// of its own (options: playwright's of a context). Nothing that is not on the disk is answered.
export async function withFiles(use) {
  return withBrowser(async (browser) => {
    const [errors, requests] = [[], []];
    const open = async (file, options) => {
      const context = await browser.newContext({ ...options, offline: true });
      const page = await context.newPage();
      page.on("request", (request) => requests.push(request.url()));
      collectErrors(page, errors);
      page.setDefaultTimeout(PATIENCE_MS);
      await page.goto(pathToFileURL(file).href, { waitUntil: "commit" });
      return page;
    };
    return use(open, errors, requests);
  });
}

// A page at ORIGIN whose requests are answered by `answer(path)`, or by this folder's files.
// Errors of the page end the program.
export async function withPage(size, answer, use) {
  return withBrowser(async (browser) => {
    const page = await browser.newPage({ viewport: size });
    const errors = [];
    collectErrors(page, errors);
    await page.route("**/*", async (route) => {
      const name = new URL(route.request().url()).pathname;
      if (name === "/favicon.ico") return route.fulfill({ status: 204 });
      const body = (await answer(name)) ?? (await readFile(path.join(FOLDER, name)));
      await route.fulfill({ body, contentType: TYPES[path.extname(name)] ?? "application/octet-stream" });
    });
    const result = await use(page);
    if (errors.length) throw new Error(errors.join("\n"));
    return result;
  });
}
