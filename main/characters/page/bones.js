// A skeleton as solid bones: octahedra from joint to joint, as animation programs draw them.
import * as THREE from "three";

const WIDEST_AT = 0.16;
const THICKNESS = 0.09;
const THICKEST_M = 0.035;

function octahedron() {
  const w = WIDEST_AT;
  const [tail, tip] = [[0, 0, 0], [0, 1, 0]];
  const ring = [[1, w, 0], [0, w, 1], [-1, w, 0], [0, w, -1]];
  const corners = ring.flatMap((point, k) => {
    const next = ring[(k + 1) % 4];
    return [tip, next, point, tail, point, next];
  });
  const geometry = new THREE.BufferGeometry();
  geometry.setAttribute("position", new THREE.Float32BufferAttribute(corners.flat(), 3));
  geometry.computeVertexNormals();
  return geometry;
}

const GEOMETRY = octahedron();
const UP = new THREE.Vector3(0, 1, 0);

export class BoneShapes {
  #a = new THREE.Vector3();
  #b = new THREE.Vector3();
  #turn = new THREE.Quaternion();
  #size = new THREE.Vector3();
  #matrix = new THREE.Matrix4();

  constructor(bones, parents, ghost) {
    this.bones = bones;
    this.parents = parents;
    this.material = new THREE.MeshLambertMaterial({
      transparent: true,
      opacity: ghost ? 0.45 : 1,
      flatShading: true,
      emissiveIntensity: 0.25,
    });
    this.mesh = new THREE.InstancedMesh(GEOMETRY, this.material, parents.length - 1);
    this.mesh.frustumCulled = false;
    this.mesh.renderOrder = 3;
  }

  // World matrices of bones must be up to date; `inverse` maps from the world to the mesh's parent.
  update(inverse) {
    for (let joint = 1; joint < this.parents.length; joint++) {
      this.#a.setFromMatrixPosition(this.bones[this.parents[joint]].matrixWorld);
      this.#b.setFromMatrixPosition(this.bones[joint].matrixWorld);
      this.#a.applyMatrix4(inverse);
      this.#b.applyMatrix4(inverse).sub(this.#a);
      const length = this.#b.length();
      const thickness = Math.min(length * THICKNESS, THICKEST_M);
      this.#turn.setFromUnitVectors(UP, this.#b.normalize());
      this.#matrix.compose(this.#a, this.#turn, this.#size.set(thickness, length, thickness));
      this.mesh.setMatrixAt(joint - 1, this.#matrix);
    }
    this.mesh.instanceMatrix.needsUpdate = true;
  }

  // Bones inside a surface are drawn over it.
  style(color, through) {
    this.material.color.set(color).lerp(new THREE.Color(0xffffff), 0.35);
    this.material.emissive.set(color);
    this.material.depthTest = !through;
  }
}
