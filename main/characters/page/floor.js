// The ground: a grid that fades out, soft shadows under people, and the camera.
import * as THREE from "three";

const RADIUS_M = 9;
const STEP_M = 0.5;
const STRONG_EVERY = 5;
const PIECE_M = 1.5;

// Lines in pieces, whose ends fade with the distance from the middle.
function gridLines() {
  const [count, pieces] = [Math.round(RADIUS_M / STEP_M), Math.round(RADIUS_M / PIECE_M)];
  const places = [];
  const colors = [];
  const add = (x, z, strong) => {
    const fade = Math.max(0, 1 - Math.hypot(x, z) / RADIUS_M) ** 1.2;
    places.push(x, 0, z);
    colors.push(1, 1, 1, fade * (strong ? 1 : 0.42));
  };
  for (let line = -count; line <= count; line++) {
    const strong = line % STRONG_EVERY === 0;
    for (let piece = -pieces; piece < pieces; piece++) {
      const [across, from, to] = [line * STEP_M, piece * PIECE_M, (piece + 1) * PIECE_M];
      if (Math.hypot(across, Math.min(Math.abs(from), Math.abs(to))) >= RADIUS_M) continue;
      add(across, from, strong);
      add(across, to, strong);
      add(from, across, strong);
      add(to, across, strong);
    }
  }
  const geometry = new THREE.BufferGeometry();
  geometry.setAttribute("position", new THREE.Float32BufferAttribute(places, 3));
  geometry.setAttribute("color", new THREE.Float32BufferAttribute(colors, 4));
  return geometry;
}

export class Floor {
  constructor(middle) {
    this.group = new THREE.Group();
    this.lines = new THREE.LineBasicMaterial({ vertexColors: true, transparent: true, depthWrite: false });
    const grid = new THREE.LineSegments(gridLines(), this.lines);
    grid.position.set(middle.x, 0, middle.z);
    this.group.add(grid);
    this.shadowMaterial = new THREE.MeshBasicMaterial({
      map: blot(),
      color: 0x000000,
      transparent: true,
      depthWrite: false,
      opacity: 0.4,
    });
  }

  // A soft round shadow to be placed under a person.
  addShadow() {
    const shadow = new THREE.Mesh(new THREE.PlaneGeometry(1.3, 1.3), this.shadowMaterial);
    shadow.rotation.x = -Math.PI / 2;
    shadow.renderOrder = 1;
    this.group.add(shadow);
    return shadow;
  }

  theme(dark) {
    this.lines.color.set(dark ? 0x8a96a5 : 0x5f6b7a);
    this.lines.opacity = dark ? 0.5 : 0.55;
    this.shadowMaterial.opacity = dark ? 0.5 : 0.28;
  }
}

function blot() {
  const size = 64;
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d");
  const shade = context.createRadialGradient(size / 2, size / 2, 0, size / 2, size / 2, size / 2);
  shade.addColorStop(0, "rgba(255,255,255,1)");
  shade.addColorStop(0.45, "rgba(255,255,255,0.45)");
  shade.addColorStop(1, "rgba(255,255,255,0)");
  context.fillStyle = shade;
  context.fillRect(0, 0, size, size);
  return new THREE.CanvasTexture(canvas);
}

// The path of the camera, in the world.
export function cameraPath({ poses }) {
  const places = [];
  for (let at = 0; at < poses.length; at += 16) places.push(...poses.subarray(at + 12, at + 15));
  const geometry = new THREE.BufferGeometry();
  geometry.setAttribute("position", new THREE.Float32BufferAttribute(places, 3));
  return new THREE.Line(
    geometry,
    new THREE.LineBasicMaterial({ color: 0x8a96a5, transparent: true, opacity: 0.5 }),
  );
}

// The camera as a pyramid of lines, in its own frame (y up, looking to -z).
export function cameraMarker({ size, focal, center }, length = 0.45) {
  const corners = [[0, 0], [1, 0], [1, 1], [0, 1]].map(([u, v]) => [
    ((u * size[0] - center[0] - 0.5) / focal[0]) * length,
    ((center[1] + 0.5 - v * size[1]) / focal[1]) * length,
    -length,
  ]);
  const points = corners.flatMap((corner, k) => [[0, 0, 0], corner, corner, corners[(k + 1) % 4]]);
  const [left, right] = corners;
  const above = [(left[0] + right[0]) / 2, left[1] * 1.3, -length];
  points.push(left, above, above, right);
  const geometry = new THREE.BufferGeometry();
  geometry.setAttribute("position", new THREE.Float32BufferAttribute(points.flat(), 3));
  return new THREE.LineSegments(
    geometry,
    new THREE.LineBasicMaterial({ color: 0x8a96a5, transparent: true, opacity: 0.8 }),
  );
}
