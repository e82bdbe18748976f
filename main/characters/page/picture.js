// The picture beside the scene: a video or an image, embedded or found beside the page.
import { embeddedFile } from "./data.js";
import { shown } from "./player.js";

const NAMES = { overlay: "Overlay", source: "Source" };

export class Picture {
  constructor(clip, state, player) {
    Object.assign(this, { clip, state, player });
    this.video = document.querySelector(".picture video");
    this.image = document.querySelector(".picture img");
    this.missing = document.querySelector(".missing");
    this.missing.querySelector("input").addEventListener("change", ({ target }) => {
      if (target.files[0]) this.#show(target.files[0].type, URL.createObjectURL(target.files[0]));
    });
    this.#offerChoices();
  }

  #offerChoices() {
    const { pictures } = this.clip;
    if (pictures.length < 2) return;
    const group = document.getElementById("picture-choice");
    pictures.forEach((picture, index) => {
      const button = document.createElement("button");
      button.textContent = NAMES[picture.label];
      button.title = `${picture.name}, ${picture.embedded ? "in this page" : "beside this page"}`;
      button.addEventListener("click", () => this.state.set({ picture: index }));
      group.append(button);
    });
    this.state.watch(["picture"], ({ picture }) => {
      [...group.children].forEach((button, k) => button.setAttribute("aria-pressed", k === picture));
    });
  }

  // Shows the chosen picture on every change; resolves when the first one has loaded or failed.
  start() {
    return new Promise((resolve) => {
      this.state.watch(["picture"], () => this.#load().then(resolve));
    });
  }

  async #load() {
    const picture = this.clip.pictures[this.state.get("picture")];
    if (!picture) {
      this.#tellMissing("There was no video or image of these people beside the result.");
      return;
    }
    const { type, path, embedded } = picture;
    const source = embedded ? URL.createObjectURL(await embeddedFile(picture, false)) : path;
    if (await this.#show(type, source)) return;
    this.#tellMissing(
      embedded
        ? `This browser does not play ${picture.name}.`
        : `${decodeURI(path)} is not there, or this browser does not play it. ` +
            "It was left beside the page; put it back in its place, or choose it.",
    );
  }

  async #show(type, source) {
    const isImage = type.startsWith("image/");
    const [element, other] = isImage ? [this.image, this.video] : [this.video, this.image];
    this.player.use(null);
    other.hidden = true;
    try {
      await shown(element, source);
    } catch {
      element.hidden = true;
      return false;
    }
    element.hidden = false;
    this.missing.hidden = true;
    if (!isImage) this.player.use(this.video);
    return true;
  }

  #tellMissing(text) {
    this.missing.querySelector("p").textContent = text;
    this.missing.hidden = false;
  }
}
