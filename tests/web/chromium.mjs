// Headless Chromium whose pages come from this folder's files; nothing is fetched from elsewhere.
import { access, readFile } from "node:fs/promises";
import { constants } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

export const FOLDER = path.dirname(fileURLToPath(import.meta.url));
export const ORIGIN = "http://page.test";
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

// A page at ORIGIN whose requests are answered by `answer(path)`, or by this folder's files.
// Errors of the page end the program.
export async function withPage(size, answer, use) {
  const browser = await chromium.launch({
    executablePath: await findChromium(),
    args: ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
  });
  try {
    const page = await browser.newPage({ viewport: size });
    const errors = [];
    page.on("pageerror", (error) => errors.push(String(error)));
    page.on("console", (message) => {
      if (message.type() === "error") errors.push(message.text());
    });
    await page.route("**/*", async (route) => {
      const name = new URL(route.request().url()).pathname;
      if (name === "/favicon.ico") return route.fulfill({ status: 204 });
      const body = (await answer(name)) ?? (await readFile(path.join(FOLDER, name)));
      await route.fulfill({ body, contentType: TYPES[path.extname(name)] ?? "application/octet-stream" });
    });
    const result = await use(page);
    if (errors.length) throw new Error(errors.join("\n"));
    return result;
  } finally {
    await browser.close();
  }
}
