// Downloads: embedded files, files beside the page, and what the page shows.
import { embeddedFile } from "./data.js";
import { QUANTITIES } from "./series.js";

function size(bytes) {
  if (bytes < 1e6) return `${Math.max(1, Math.round(bytes / 1e3))} kB`;
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export class Downloads {
  constructor(clip, state, chart, scene) {
    Object.assign(this, { clip, state, chart, scene });
    this.dialog = document.getElementById("downloads");
    const content = this.dialog.querySelector(".content");
    const pictures = clip.pictures.map((one) => ({ ...one, label: `The ${one.label}`, plain: true }));
    const files = [...clip.exports, ...pictures];
    const inside = files.filter(({ embedded }) => embedded);
    const beside = files.filter(({ embedded }) => !embedded);
    this.#section(content, "In this page", inside.map((file) => this.#inside(file)));
    this.#section(content, "Beside this page", beside.map((file) => this.#beside(file)),
      "Links into the result's folder; they lead nowhere if the page was moved.");
    this.#section(content, "Of what is shown", [
      this.#made("chart.csv", "The chart's numbers, a row a frame", () => this.#saveChart()),
      this.#made("scene.png", "The scene as it is now", () => this.#savePicture()),
    ]);
    if (!clip.exports.some(({ name }) => name.startsWith("person_") && !/^person_\d+\.npz$/.test(name))) {
      const hint = document.createElement("p");
      hint.textContent =
        "Characters for Blender, Unity and others: python -m main.export RESULT --format glb,bvh,viewer";
      content.append(hint);
    }
    document.getElementById("downloads-open").addEventListener("click", () => this.dialog.showModal());
  }

  #section(content, title, items, note) {
    if (!items.length) return;
    const heading = document.createElement("h3");
    heading.textContent = title;
    content.append(heading);
    if (note) content.append(Object.assign(document.createElement("p"), { textContent: note }));
    content.append(...items);
  }

  #item(name, about, control) {
    const item = document.createElement("div");
    item.className = "file";
    const text = document.createElement("div");
    const title = Object.assign(document.createElement("b"), { textContent: name });
    text.append(title, Object.assign(document.createElement("small"), { textContent: about }));
    item.append(text, control);
    return item;
  }

  #button(name, act) {
    const button = document.createElement("button");
    button.className = "text";
    button.textContent = "Save";
    button.setAttribute("aria-label", `Save ${name}`);
    button.addEventListener("click", act);
    return button;
  }

  #inside(file) {
    const act = async () => save(await embeddedFile(file, !file.plain), file.name);
    return this.#item(file.name, `${file.label} · ${size(file.bytes)}`, this.#button(file.name, act));
  }

  #beside(file) {
    const link = document.createElement("a");
    link.className = "button text";
    link.href = file.path;
    link.textContent = file.files === null ? "Save" : "Open";
    if (file.files === null) link.download = file.name;
    else link.target = "_blank";
    const amount = file.files === null ? size(file.bytes) : `${file.files} files`;
    return this.#item(file.name, `${file.label} · ${amount}`, link);
  }

  #made(ending, about, act) {
    const name = `${this.clip.name}_${ending}`;
    return this.#item(name, about, this.#button(name, () => act(name)));
  }

  #saveChart() {
    const { values } = this.state;
    const joint = this.clip.joints[values.joint];
    const { unit } = QUANTITIES[values.quantity];
    const lines = this.chart.lines(values).sort((a, b) => a.person.number - b.person.number);
    const heads = lines.map(
      ({ person, kind }) => `person ${person.number} ${joint} ${values.quantity} ${kind} (${unit})`,
    );
    const rows = [["frame", "time (s)", ...heads]];
    for (let frame = 0; frame < this.clip.frames; frame++) {
      const numbers = lines.map(({ values: series }) =>
        Number.isFinite(series[frame]) ? series[frame].toPrecision(6) : "",
      );
      rows.push([frame, (frame / this.clip.fps).toFixed(4), ...numbers]);
    }
    const text = rows.map((row) => row.join(",")).join("\n");
    save(new Blob([`${text}\n`], { type: "text/csv" }), `${this.clip.name}_chart.csv`);
  }

  #savePicture() {
    this.scene.draw();
    this.scene.canvas.toBlob((blob) => save(blob, `${this.clip.name}_scene.png`));
  }
}
