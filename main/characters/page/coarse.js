// The coarse surface of a person as one mesh, for machines without a graphics card: the CPU skins
// each vertex once, not at each corner as shaders do, and leaves out back faces.
import * as THREE from "three";

const KEPT = 4; // joints per vertex

const changing = (array, size) =>
  new THREE.BufferAttribute(array, size).setUsage(THREE.DynamicDrawUsage);

export class CoarseSurface {
  // meshes: with one skeleton; `userData.coarse` has the corners of their coarse triangles.
  constructor(meshes, skeleton, material) {
    this.skeleton = skeleton;
    this.parts = [];
    const corners = [];
    let count = 0;
    for (const mesh of meshes) {
      const points = Uint16Array.from(new Set(mesh.userData.coarse));
      const numbers = new Map(Array.from(points, (point, k) => [point, count + k]));
      for (const corner of mesh.userData.coarse) corners.push(numbers.get(corner));
      this.parts.push({ mesh, points, start: count });
      count += points.length;
    }
    this.corners = Uint16Array.from(corners);
    this.index = changing(new Uint16Array(corners.length), 1);
    this.positions = changing(new Float32Array(3 * count), 3);
    this.normals = changing(new Float32Array(3 * count), 3);
    this.colors = new THREE.BufferAttribute(new Float32Array(3 * count), 3);
    const geometry = new THREE.BufferGeometry();
    geometry.setIndex(this.index);
    geometry.setAttribute("position", this.positions);
    geometry.setAttribute("normal", this.normals);
    geometry.setAttribute("color", this.colors);
    this.mesh = new THREE.Mesh(geometry, material);
    this.mesh.name = "coarse";
    this.mesh.frustumCulled = false; // its bounds are not computed
    this.mesh.matrixWorldAutoUpdate = false; // its vertices are in world coordinates
  }

  // Copies the colours of the meshes.
  recolor() {
    const color = new THREE.Color();
    for (const { mesh, points, start } of this.parts) {
      const own = mesh.material.vertexColors && mesh.geometry.attributes.color;
      points.forEach((point, k) => {
        if (own) color.fromBufferAttribute(own, point).multiply(mesh.material.color);
        else color.copy(mesh.material.color);
        color.toArray(this.colors.array, 3 * (start + k));
      });
    }
    this.colors.needsUpdate = true;
  }

  // World matrices of bones must be up to date. eye: position of the viewer, in the world.
  update(eye) {
    this.skeleton.update();
    for (const part of this.parts) this.#skin(part);
    this.#dropBacks(eye);
    this.positions.needsUpdate = true;
    this.normals.needsUpdate = true;
    this.index.needsUpdate = true;
  }

  #dropBacks(eye) {
    const { corners } = this;
    const places = this.positions.array;
    const index = this.index.array;
    let kept = 0;
    for (let i = 0; i < corners.length; i += 3) {
      const a = 3 * corners[i], b = 3 * corners[i + 1], c = 3 * corners[i + 2];
      const x = places[a], y = places[a + 1], z = places[a + 2];
      const ux = places[b] - x, uy = places[b + 1] - y, uz = places[b + 2] - z;
      const vx = places[c] - x, vy = places[c + 1] - y, vz = places[c + 2] - z;
      const facing =
        (uy * vz - uz * vy) * (eye.x - x) +
        (uz * vx - ux * vz) * (eye.y - y) +
        (ux * vy - uy * vx) * (eye.z - z);
      if (facing <= 0) continue;
      index[kept++] = corners[i];
      index[kept++] = corners[i + 1];
      index[kept++] = corners[i + 2];
    }
    this.mesh.geometry.setDrawRange(0, kept);
  }

  // Positions and normals are blended as in the shaders of three.js.
  #skin({ mesh, points, start }) {
    const bones = this.skeleton.boneMatrices;
    const { position, normal, skinIndex, skinWeight } = mesh.geometry.attributes;
    const [places, normals] = [position.array, normal.array];
    const [joints, weights] = [skinIndex.array, skinWeight.array];
    const [toPlaces, toNormals] = [this.positions.array, this.normals.array];
    for (let i = 0, to = 3 * start; i < points.length; i++, to += 3) {
      const at = 3 * points[i];
      const [x, y, z] = [places[at], places[at + 1], places[at + 2]];
      const [u, v, w] = [normals[at], normals[at + 1], normals[at + 2]];
      let px = 0, py = 0, pz = 0, nx = 0, ny = 0, nz = 0;
      for (let k = KEPT * points[i], end = k + KEPT; k < end; k++) {
        const weight = weights[k];
        if (weight === 0) continue;
        const b = 16 * joints[k];
        const m0 = bones[b], m1 = bones[b + 1], m2 = bones[b + 2];
        const m4 = bones[b + 4], m5 = bones[b + 5], m6 = bones[b + 6];
        const m8 = bones[b + 8], m9 = bones[b + 9], m10 = bones[b + 10];
        px += weight * (m0 * x + m4 * y + m8 * z + bones[b + 12]);
        py += weight * (m1 * x + m5 * y + m9 * z + bones[b + 13]);
        pz += weight * (m2 * x + m6 * y + m10 * z + bones[b + 14]);
        nx += weight * (m0 * u + m4 * v + m8 * w);
        ny += weight * (m1 * u + m5 * v + m9 * w);
        nz += weight * (m2 * u + m6 * v + m10 * w);
      }
      toPlaces[to] = px;
      toPlaces[to + 1] = py;
      toPlaces[to + 2] = pz;
      toNormals[to] = nx;
      toNormals[to + 1] = ny;
      toNormals[to + 2] = nz;
    }
  }
}
