// Buttons that play, the readout of the time, the ruler, and the playhead over all lanes.
import { cleared, clock, cssColor, scrubs, ticks, xOf } from "./axis.js";

const SPEEDS = [0.1, 0.25, 0.5, 1, 1.5, 2];

export class Transport {
  constructor(clip, state, player) {
    Object.assign(this, { clip, state, player });
    this.ruler = document.getElementById("ruler");
    this.#wireButtons();
    this.#wireSpeed();
    scrubs(this.ruler, clip.frames, (frame) => player.seek(frame));
    this.ruler.setAttribute("aria-valuemin", 0);
    this.ruler.setAttribute("aria-valuemax", player.last);
    new ResizeObserver(() => this.#drawRuler()).observe(this.ruler);
    state.watch(["dark"], () => this.#drawRuler());
    this.heads = document.querySelectorAll(".lane, #ruler");
    state.watch(["frame"], ({ frame }) => this.#moveHeads(frame));
    state.watchCalmly(["frame"], ({ frame }) => this.#tell(frame));
    state.watch(["playing"], ({ playing }) => this.#tellPlaying(playing));
  }

  actions() {
    return {
      first: () => this.player.step(-Infinity),
      back: () => this.player.step(-1),
      play: () => this.player.toggle(),
      forth: () => this.player.step(1),
      last: () => this.player.step(Infinity),
    };
  }

  faster(steps) {
    const at = SPEEDS.indexOf(this.state.get("speed")) + steps;
    this.state.set({ speed: SPEEDS[Math.min(Math.max(at, 0), SPEEDS.length - 1)] });
  }

  #wireButtons() {
    const actions = this.actions();
    for (const button of document.querySelectorAll("[data-do]")) {
      button.addEventListener("click", actions[button.dataset.do]);
      button.disabled = this.clip.frames < 2;
    }
  }

  #wireSpeed() {
    const select = document.getElementById("speed");
    for (const speed of SPEEDS) select.add(new Option(`${speed}×`, speed));
    select.addEventListener("change", () => this.state.set({ speed: Number(select.value) }));
    this.state.watch(["speed"], ({ speed }) => (select.value = speed));
  }

  #tell(frame) {
    const { clip } = this;
    const [time, count] = document.getElementById("now").children;
    time.textContent = clock(frame, clip.fps);
    count.textContent = `frame ${frame} of ${clip.frames}`;
    this.ruler.setAttribute("aria-valuenow", frame);
    this.ruler.setAttribute("aria-valuetext", `frame ${frame}, ${time.textContent}`);
  }

  #moveHeads(frame) {
    const at = xOf(frame, this.clip.frames, 1);
    for (const element of this.heads) element.style.setProperty("--at", at);
  }

  #tellPlaying(playing) {
    const button = document.querySelector("[data-do=play]");
    button.querySelector("use").setAttribute("href", playing ? "#i-pause" : "#i-play");
    button.setAttribute("aria-label", playing ? "Pause" : "Play");
  }

  #drawRuler() {
    const drawing = cleared(this.ruler.querySelector("canvas"));
    if (!drawing) return;
    const { context, width, height } = drawing;
    const { frames, fps } = this.clip;
    const duration = frames / fps;
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "center";
    const major = ticks(0, duration, Math.max(2, width / 90));
    const step = (major[1] ?? duration) / 5;
    context.fillStyle = cssColor("strong");
    for (let time = 0; time < duration; time += step) {
      context.fillRect(Math.round((time / duration) * width), height - 4, 1, 4);
    }
    for (const time of major) {
      const x = (time / duration) * width;
      context.fillStyle = cssColor("strong");
      context.fillRect(Math.round(x), height - 9, 1, 9);
      if (x < 12 || x > width - 12) continue;
      context.fillStyle = cssColor("quiet");
      context.fillText(`${Number(time.toFixed(2))} s`, x, height - 13);
    }
  }
}
