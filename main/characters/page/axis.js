// The time axis that ruler, lanes and chart share, and canvases in the resolution of the screen.

// All frames have cells of equal width; the playhead is in the middle of one.
export const xOf = (frame, frames, width) => ((frame + 0.5) / frames) * width;

export function frameAt(x, frames, width) {
  return Math.min(Math.max(Math.floor((x / width) * frames), 0), frames - 1);
}

// Dragging or touching `element` calls `seek(frame)`.
export function scrubs(element, frames, seek) {
  const move = (event) => {
    const box = element.getBoundingClientRect();
    seek(frameAt(event.clientX - box.left, frames, box.width));
  };
  element.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    element.setPointerCapture(event.pointerId);
    move(event);
  });
  element.addEventListener("pointermove", (event) => {
    if (element.hasPointerCapture(event.pointerId)) move(event);
  });
}

// A cleared context in CSS pixels; null while the canvas has no size.
export function cleared(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!width || !height) return null;
  const ratio = Math.min(devicePixelRatio, 2);
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return { context, width, height };
}

export const cssColor = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// About `count` round numbers from low to high.
export function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const found = [];
  for (let k = Math.ceil(low / step - 1e-6); k * step <= high + 1e-6 * step; k++) {
    found.push(k * step);
  }
  return found;
}

export function clock(frame, fps) {
  const seconds = frame / fps;
  const minutes = Math.floor(seconds / 60);
  const rest = (seconds - 60 * minutes).toFixed(2).padStart(5, "0");
  return `${minutes}:${rest}`;
}
