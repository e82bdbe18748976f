// The 3D scene: everyone in one frame, drawn when something has changed.
import * as THREE from "three";
import { Figure } from "./figure.js";
import { Floor, cameraMarker, cameraPath } from "./floor.js";
import { placesOf } from "./reach.js";
import { isHidden } from "./state.js";
import { Views } from "./views.js";

const CLOSE_PX = 36;
const LEAST_PIXEL_RATIO = 0.5;
const LATE = 1.6; // times the duration of a frame
const LATE_FRAMES = 8;

// Without a graphics card, antialiasing takes longer than drawing all people.
function drawsInSoftware() {
  const gl = document.createElement("canvas").getContext("webgl2");
  const info = gl?.getExtension("WEBGL_debug_renderer_info");
  const name = info ? gl.getParameter(info.UNMASKED_RENDERER_WEBGL) : "";
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  return /swiftshader|llvmpipe|software|basic render/i.test(name);
}

export class Scene {
  #due = 0;
  #late = 0;
  #drawn = 0;
  #eye = new THREE.Vector3();

  constructor(clip, state, panel) {
    Object.assign(this, { clip, state, panel });
    this.canvas = panel.querySelector("canvas");
    this.gate = panel.querySelector(".gate");
    this.slow = drawsInSoftware();
    const antialias = !this.slow;
    this.renderer = new THREE.WebGLRenderer({ canvas: this.canvas, alpha: true, antialias });
    this.stillRatio = Math.min(devicePixelRatio, this.slow ? 1 : 2);
    this.pixelRatio = this.stillRatio; // while it plays
    this.scene = new THREE.Scene();
    this.root = new THREE.Group();
    this.root.matrixAutoUpdate = false;
    this.root.matrix.fromArray(clip.world).transpose();
    this.root.updateMatrixWorld(true);
    this.scene.add(this.root);
    this.#addLights();

    this.figures = clip.people.map((person) => this.#figure(person, false));
    this.ghosts = clip.people.map((person) => person.raw && this.#figure(person, true));
    const places = placesOf(this.figures, clip);
    this.floor = new Floor(new THREE.Box3().setFromPoints(places).getCenter(new THREE.Vector3()));
    this.shadows = clip.people.map(() => this.floor.addShadow());
    this.scene.add(this.floor.group);
    this.marker = cameraMarker(clip);
    this.marker.matrixAutoUpdate = false;
    this.root.add(this.marker);
    if (clip.cameras) this.root.add((this.path = cameraPath(clip.cameras)));
    this.views = new Views(clip, this.canvas, this.root.matrix, () => this.#turned());
    this.views.start(places);
    this.#listen();
  }

  #addLights() {
    this.scene.add(new THREE.HemisphereLight(0xf4f7ff, 0x6b6f78, 2.1));
    const key = new THREE.DirectionalLight(0xfff4e6, 2.0);
    key.position.set(2, 4, 3);
    const rim = new THREE.DirectionalLight(0xdfe9ff, 0.9);
    rim.position.set(-3, 2, -4);
    this.scene.add(key, rim);
  }

  #figure(person, ghost) {
    const figure = new Figure(this.clip, person, ghost);
    this.root.add(figure.group);
    figure.group.updateMatrixWorld(true);
    return figure;
  }

  #listen() {
    new ResizeObserver(() => this.#resize()).observe(this.panel);
    const look = ["surface", "skeleton", "motion", "colors", "hidden", "floor", "view"];
    this.state.watch(look, (values) => this.#style(values));
    this.state.watch(["frame"], () => this.invalidate());
    this.state.watch(["playing"], () => this.#refine());
    this.state.watch(["dark"], ({ dark }) => {
      this.floor.theme(dark);
      this.invalidate();
    });
    this.views.controls.addEventListener("end", () => {
      this.turning = false;
      this.#refine();
    });
    let from = null;
    this.canvas.addEventListener("pointerdown", (event) => (from = [event.clientX, event.clientY]));
    this.canvas.addEventListener("pointerup", (event) => {
      if (from && Math.hypot(event.clientX - from[0], event.clientY - from[1]) < 5) this.#pick(event);
    });
  }

  #style({ surface, skeleton, motion, colors, floor, view }) {
    this.clip.people.forEach((person, index) => {
      const color = colors[index];
      this.figures[index].style({ surface, skeleton, color });
      this.ghosts[index]?.style({ surface, skeleton, color });
    });
    this.comparing = motion === "both";
    const free = view === "orbit";
    this.floor.group.visible = floor && view !== "picture";
    this.marker.visible = floor && free;
    if (this.path) this.path.visible = floor && free;
    this.camera = free ? this.views.orbit : this.views.recorded;
    this.views.controls.enabled = free;
    this.gate.hidden = view !== "camera";
    this.invalidate();
  }

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.panel;
    if (!width || !height) return;
    this.renderer.setPixelRatio(this.#ratio);
    this.renderer.setSize(width, height, false);
    const margin = this.views.resize(width, height);
    this.gate.style.inset = `${margin.y}px ${margin.x}px`;
    this.draw();
  }

  invalidate() {
    this.#due ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.#due);
    this.#due = 0;
    if (!this.camera) return;
    const { frame, motion } = this.state.values;
    if (this.clip.cameras) {
      this.views.show(frame);
      this.marker.matrix.copy(this.views.recorded.matrix);
      this.marker.updateMatrixWorld(true);
    }
    this.camera.updateMatrixWorld();
    this.#eye.setFromMatrixPosition(this.camera.matrixWorld);
    this.clip.people.forEach((person, index) => {
      const row = isHidden(this.state.values, index) ? -1 : person.rowOf[frame];
      const shown = motion === "raw" && person.raw ? person.raw : person.smoothed;
      this.#place(this.figures[index], row, shown, this.shadows[index]);
      if (this.ghosts[index]) {
        this.#place(this.ghosts[index], this.comparing ? row : -1, person.raw, null);
      }
    });
    if (this.state.get("follow")) this.#follow();
    this.renderer.render(this.scene, this.camera);
    this.#adapt();
  }

  #place(figure, row, motion, shadow) {
    figure.group.visible = row >= 0;
    if (shadow) shadow.visible = row >= 0;
    if (row < 0) return;
    figure.pose(motion, row, this.#eye);
    if (!shadow) return;
    shadow.position.setFromMatrixPosition(figure.bones[0].matrixWorld);
    shadow.position.y = 0.004;
  }

  // Slow machines use coarse surfaces in motion; still pictures have full quality everywhere.
  #refine() {
    this.hurried = this.slow && (this.state.get("playing") || this.turning);
    for (const figure of [...this.figures, ...this.ghosts]) figure?.refine(this.hurried);
    if (this.renderer.getPixelRatio() === this.#ratio) this.invalidate();
    else this.#resize();
  }

  get #ratio() {
    return this.hurried ? this.pixelRatio : this.stillRatio;
  }

  #turned() {
    this.invalidate();
    if (this.turning || !this.views.held) return;
    this.turning = true;
    this.#refine();
  }

  // If frames are late, first use coarse surfaces, then fewer pixels.
  #adapt() {
    const now = performance.now();
    const { playing, speed } = this.state.values;
    const expected = Math.max(1000 / (this.clip.fps * speed), 17);
    const late = playing && now - this.#drawn > LATE * expected;
    this.#drawn = now;
    this.#late = late ? this.#late + 1 : Math.max(0, this.#late - 1);
    if (this.#late < LATE_FRAMES) return;
    this.#late = 0;
    if (!this.slow) {
      this.slow = true;
      this.#refine();
      return;
    }
    if (this.pixelRatio <= LEAST_PIXEL_RATIO) return;
    this.pixelRatio = Math.max(LEAST_PIXEL_RATIO, this.pixelRatio * 0.75);
    this.#resize();
  }

  // Selects the person, and the joint, nearest to a point of the canvas.
  #pick(event) {
    const box = this.canvas.getBoundingClientRect();
    const point = new THREE.Vector3();
    let nearest = { distance: CLOSE_PX };
    this.figures.forEach((figure, index) => {
      if (!figure.group.visible) return;
      figure.bones.forEach((bone, joint) => {
        point.setFromMatrixPosition(bone.matrixWorld).project(this.camera);
        const x = (point.x * 0.5 + 0.5) * box.width + box.left - event.clientX;
        const y = (0.5 - point.y * 0.5) * box.height + box.top - event.clientY;
        const distance = Math.hypot(x, y);
        if (distance < nearest.distance) nearest = { distance, index, joint };
      });
    });
    if (nearest.index === undefined) return;
    const joint = this.state.get("skeleton") ? { joint: nearest.joint } : {};
    this.state.set({ selected: nearest.index, ...joint });
  }

  #pelvisOfSelected() {
    const figure = this.figures[this.state.get("selected")];
    if (!figure.group.visible) return null;
    return new THREE.Vector3().setFromMatrixPosition(figure.bones[0].matrixWorld);
  }

  focus() {
    const place = this.#pelvisOfSelected();
    if (place) this.views.lookAt(place, 3.2);
  }

  #follow() {
    const place = this.#pelvisOfSelected();
    if (place) this.views.lookAt(place);
  }
}
