// A row for each person: visibility, colour, name, and a timeline of presence.
import { cleared, cssColor, scrubs, xOf } from "./axis.js";
import { hatched, stretches } from "./flags.js";
import { isHidden, toggleHidden } from "./state.js";

const STRIP_PX = 3;
const GAP_PX = 2;

export class People {
  constructor(clip, state, player) {
    Object.assign(this, { clip, state });
    this.rows = clip.people.map((person, index) => this.#row(person, index, player));
    document.getElementById("people").append(...this.rows);
    state.watch(["hidden", "selected", "colors"], (values) => this.#tell(values));
    state.watchCalmly(["frame"], (values) => this.#tell(values));
    state.watch(["colors", "dark"], () => this.#drawLanes());
    new ResizeObserver(() => this.#drawLanes()).observe(this.rows[0]);
  }

  #row(person, index, player) {
    const row = document.createElement("div");
    row.className = "row person";
    row.innerHTML = `
      <div class="about">
        <button class="eye" title="Show or hide (${index + 1})"><svg><use href="#i-eye"/></svg></button>
        <input type="color" title="Colour" aria-label="Colour of person ${person.number}">
        <button class="name" title="Select">Person ${person.number}<small></small></button>
      </div>
      <div class="lane"><canvas></canvas></div>`;
    row.querySelector(".eye").addEventListener("click", () => toggleHidden(this.state, index));
    row.querySelector(".eye").setAttribute("aria-label", `Show person ${person.number}`);
    row.querySelector(".name").addEventListener("click", () => this.state.set({ selected: index }));
    row.querySelector("input").addEventListener("input", ({ target }) => {
      this.state.set({ colors: this.state.get("colors").with(index, target.value) });
    });
    const lane = row.querySelector(".lane");
    lane.addEventListener("pointerdown", () => this.state.set({ selected: index }));
    scrubs(lane, this.clip.frames, (frame) => player.seek(frame));
    return row;
  }

  #tell(values) {
    this.rows.forEach((row, index) => {
      const person = this.clip.people[index];
      const hidden = isHidden(values, index);
      row.classList.toggle("hidden", hidden);
      row.classList.toggle("selected", values.selected === index);
      row.querySelector(".eye").setAttribute("aria-pressed", !hidden);
      row.querySelector(".eye use").setAttribute("href", hidden ? "#i-hidden" : "#i-eye");
      row.querySelector("input").value = values.colors[index];
      const at = person.rowOf[values.frame];
      const score = person.flags.score?.[at];
      const filled = person.flags.interpolated?.[at];
      const told = at < 0 ? "not here" : filled ? "interpolated" : score && `score ${score}\u2009%`;
      row.querySelector("small").textContent = told ?? "";
    });
  }

  #drawLanes() {
    this.rows.forEach((row, index) => {
      const drawing = cleared(row.querySelector("canvas"));
      if (drawing) this.#drawLane(drawing, this.clip.people[index], this.state.get("colors")[index]);
    });
  }

  // A bar where the person is present, strips above and below it for hidden parts, and hatching.
  #drawLane({ context, width, height }, person, color) {
    const { frames } = this.clip;
    const tall = Math.min(14, height - 2 * (STRIP_PX + GAP_PX) - 4);
    const top = (height - tall) / 2;
    const present = { ...person, flags: { present: new Uint8Array(person.frames.length).fill(1) } };
    context.fillStyle = color;
    stretches(present, "present", frames, width, (x, wide) => {
      context.globalAlpha = 0.6;
      context.beginPath();
      context.roundRect(x, top, Math.max(wide, 2), tall, 3);
      context.fill();
    });
    const strips = { occlusion: top - GAP_PX - STRIP_PX, truncation: top + tall + GAP_PX };
    for (const [flag, y] of Object.entries(strips)) {
      context.fillStyle = cssColor(flag);
      stretches(person, flag, frames, width, (x, wide, strong) => {
        context.globalAlpha = 0.35 + 0.65 * strong;
        context.fillRect(x, y, wide, STRIP_PX);
      });
    }
    context.globalAlpha = 1;
    stretches(person, "interpolated", frames, width, (x, wide) => {
      context.fillStyle = cssColor("panel");
      context.fillRect(x, top, wide, tall);
      context.fillStyle = hatched(context, color);
      context.fillRect(x, top, wide, tall);
    });
    context.fillStyle = cssColor("out_of_range");
    stretches(person, "out_of_range", frames, width, (x, wide) => {
      context.fillRect(x, top, Math.max(wide, 2), tall);
    });
  }
}
