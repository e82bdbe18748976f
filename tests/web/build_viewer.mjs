// The viewer's JavaScript and three.js in one file, as it is committed and goes into every page.
// node build_viewer.mjs [OUTPUT]
import { readFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import esbuild from "esbuild";

const here = path.dirname(fileURLToPath(import.meta.url));
const page = path.join(here, "../../main/characters/page");
const licence = await readFile(path.join(here, "node_modules/three/LICENSE"), "utf8");
await esbuild.build({
  absWorkingDir: page,
  entryPoints: ["main.js"],
  outfile: process.argv[2] ?? path.join(page, "bundle.js"),
  nodePaths: [path.join(here, "node_modules")],
  banner: { js: `/* Contains three.js (https://threejs.org).\n${licence.trim()}\n*/` },
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  charset: "utf8",
  legalComments: "inline",
});
