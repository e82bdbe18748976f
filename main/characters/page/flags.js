// Flags of doubtful frames, and how they are shaded.
import { cssColor, xOf } from "./axis.js";

export const FLAGS = {
  interpolated: "Interpolated",
  out_of_range: "Out of range",
  truncation: "Truncation",
  occlusion: "Occlusion",
};
export const MEANINGS = {
  interpolated: "nobody was detected: filled in between neighbouring frames",
  out_of_range: "a joint is turned farther than joints go",
  truncation: "share of the body outside the picture: the stronger, the more",
  occlusion: "share of the body behind somebody nearer: the stronger, the more",
};

// From 0 to 1; shares are stored in percent.
export function strength(person, flag, row) {
  const values = person.flags[flag];
  if (!values) return 0;
  const share = flag === "truncation" || flag === "occlusion";
  return share ? values[row] / 100 : values[row];
}

// Calls `paint(x, width, strength)` for stretches of equal strength, in tenths.
export function stretches(person, flag, frames, width, paint) {
  let from = 0;
  let last = 0;
  for (let frame = 0; frame <= frames; frame++) {
    const row = frame < frames ? person.rowOf[frame] : -1;
    const now = row < 0 ? 0 : Math.ceil(strength(person, flag, row) * 10) / 10;
    if (now === last) continue;
    const x = xOf(from - 0.5, frames, width);
    if (last) paint(x, Math.max(xOf(frame - 0.5, frames, width) - x, 1), last);
    [from, last] = [frame, now];
  }
}

export function hatched(context, color) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 6;
  const pen = tile.getContext("2d");
  pen.strokeStyle = color;
  pen.lineWidth = 1.4;
  for (const shift of [-6, 0, 6]) {
    pen.beginPath();
    pen.moveTo(shift, 6);
    pen.lineTo(shift + 6, 0);
    pen.stroke();
  }
  return context.createPattern(tile, "repeat");
}

// All flags of a person over the height of a chart.
export function shade(context, person, frames, width, height) {
  for (const flag of Object.keys(FLAGS)) {
    const color = cssColor(flag);
    context.fillStyle = flag === "interpolated" ? hatched(context, color) : color;
    stretches(person, flag, frames, width, (x, wide, strong) => {
      context.globalAlpha = flag === "interpolated" ? 0.55 : 0.06 + 0.24 * strong;
      context.fillRect(x, 0, wide, height);
    });
  }
  context.globalAlpha = 1;
}
