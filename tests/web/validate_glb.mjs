// Khronos' validator on a .glb: its report as JSON on stdout.
// node validate_glb.mjs FILE.glb
import { readFile } from "node:fs/promises";
import validator from "gltf-validator";

const content = new Uint8Array(await readFile(process.argv[2]));
const report = await validator.validateBytes(content, { maxIssues: 0 });
console.log(JSON.stringify(report));
