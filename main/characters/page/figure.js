// One person in the scene: a skinned body and clothes on 55 bones, posed by a row of a motion.
import * as THREE from "three";
import { BoneShapes } from "./bones.js";
import { CoarseSurface } from "./coarse.js";
import { restOffset } from "./series.js";

// Ghosts are visible at their outlines, and where they are over a centimetre in front of the body.
function asGhost(material) {
  Object.assign(material, { transparent: true, depthWrite: false });
  Object.assign(material, { polygonOffset: true, polygonOffsetUnits: 400 });
  material.onBeforeCompile = (shader) => {
    shader.fragmentShader = shader.fragmentShader.replace(
      "#include <opaque_fragment>",
      `#include <opaque_fragment>
      float facing = abs(dot(normalize(normal), normalize(vViewPosition)));
      gl_FragColor.a *= 0.06 + 0.9 * pow(1.0 - facing, 1.6);`,
    );
  };
}

const WHITE = new THREE.Color(0xffffff);

const attribute = (array, size) => new THREE.BufferAttribute(array, size);

function geometryOf({ positions, normals, joints, weights, colors }, faces) {
  const geometry = new THREE.BufferGeometry();
  geometry.setIndex(attribute(Uint16Array.from(faces), 1));
  geometry.setAttribute("position", positions);
  geometry.setAttribute("normal", normals);
  geometry.setAttribute("skinIndex", joints);
  geometry.setAttribute("skinWeight", weights);
  if (colors) geometry.setAttribute("color", colors);
  return geometry;
}

export class Figure {
  #expressed = null;
  #coarseOf = new Map(); // by the first mesh that they replace

  // ghost: translucent and without clothes, for comparison.
  constructor(clip, person, ghost) {
    const { template } = clip;
    this.person = person;
    this.template = template;
    this.ghost = ghost;
    this.worn = [];
    this.coarse = null;
    this.coarsely = false;
    this.group = new THREE.Group();
    this.#makeBones(clip);

    this.positions = attribute(Float32Array.from(person.positions), 3);
    this.positions.setUsage(THREE.DynamicDrawUsage);
    const shared = {
      positions: this.positions,
      normals: attribute(person.normals, 3),
      joints: attribute(template.joints, 4),
      weights: attribute(template.weights, 4),
      colors: template.colors && attribute(template.colors, 3),
    };
    this.body = this.#mesh("body", shared, template.faces, {});
    if (ghost) asGhost(this.body.material);
    this.clothes = [];
    if (template.uncovered && !ghost) {
      this.skin = this.#mesh("skin", shared, template.uncovered, { vertexColors: true });
      this.clothes = [this.skin, ...person.garments.map((garment) => this.#garment(garment))];
    }
    this.shapes = new BoneShapes(this.bones, template.parents, ghost);
    this.group.add(this.shapes.mesh);
  }

  #makeBones(clip) {
    const { parents } = this.template;
    const { rest } = this.person;
    this.bones = clip.joints.map((name, joint) => {
      const bone = new THREE.Bone();
      bone.name = name;
      if (joint) bone.position.copy(restOffset(rest, joint, parents[joint]));
      return bone;
    });
    this.bones.forEach((bone, joint) => joint && this.bones[parents[joint]].add(bone));
    const inverses = this.bones.map((_, joint) => {
      const [x, y, z] = rest.subarray(3 * joint, 3 * joint + 3);
      return new THREE.Matrix4().makeTranslation(-x, -y, -z);
    });
    this.skeleton = new THREE.Skeleton(this.bones, inverses);
    this.group.add(this.bones[0]);
  }

  #mesh(name, surface, faces, look) {
    const material = new THREE.MeshLambertMaterial(look);
    const mesh = new THREE.SkinnedMesh(geometryOf(surface, faces.fine), material);
    mesh.name = name;
    mesh.userData.coarse = faces.coarse;
    mesh.frustumCulled = false; // its bounds belong to the rest pose
    mesh.bind(this.skeleton, new THREE.Matrix4());
    this.group.add(mesh);
    return mesh;
  }

  #garment({ name, positions, normals, faces, joints, weights, color, colors }) {
    const surface = {
      positions: attribute(positions, 3),
      normals: attribute(normals, 3),
      joints: attribute(joints, 4),
      weights: attribute(weights, 4),
      colors: colors && attribute(colors, 3),
    };
    return this.#mesh(name, surface, faces, {
      color: new THREE.Color(...color),
      vertexColors: Boolean(colors),
      side: THREE.DoubleSide,
    });
  }

  // motion: rotations, pelvis and expressions of all rows. eye: position of the viewer, in the world.
  pose(motion, row, eye) {
    const count = this.bones.length;
    this.bones.forEach((bone, joint) => {
      bone.quaternion.fromArray(motion.rotations, 4 * (row * count + joint)).normalize();
    });
    this.bones[0].position.fromArray(motion.pelvis, 3 * row);
    this.#express(motion.expressions, row);
    this.bones[0].updateMatrixWorld(true);
    this.coarse?.update(eye);
    if (this.shapes.mesh.visible) {
      this.shapes.update(this.group.matrixWorld.clone().invert());
    }
  }

  // Computes the few vertices that expressions move, which is faster than morphs of the whole body.
  #express(expressions, row) {
    const { moved, expressions: directions } = this.template;
    const kinds = directions.length / (3 * moved.length);
    const weights = expressions.subarray(kinds * row, kinds * row + kinds);
    if (this.#expressed && weights.every((weight, k) => weight === this.#expressed[k])) return;
    this.#expressed = weights;
    const { positions } = this.person;
    const target = this.positions.array;
    for (let v = 0, d = 0; v < moved.length; v++, d += 3 * kinds) {
      const at = 3 * moved[v];
      let x = positions[at], y = positions[at + 1], z = positions[at + 2];
      for (let k = 0, e = d; k < kinds; k++, e += 3) {
        x += weights[k] * directions[e];
        y += weights[k] * directions[e + 1];
        z += weights[k] * directions[e + 2];
      }
      target[at] = x;
      target[at + 1] = y;
      target[at + 2] = z;
    }
    this.positions.needsUpdate = true;
  }

  // surface: clothes, body or none.
  style({ surface, skeleton, color }) {
    this.body.material.color.set(color);
    if (this.ghost) this.body.material.color.lerp(WHITE, 0.4);
    for (const mesh of this.clothes) if (mesh.name === "shirt") mesh.material.color.set(color);
    if (surface === "none") this.worn = [];
    else this.worn = surface === "clothes" && this.clothes.length ? this.clothes : [this.body];
    this.shapes.mesh.visible = skeleton;
    this.shapes.style(color, surface !== "none");
    this.refine(this.coarsely);
  }

  // Shows the fine surface, or a coarse one instead.
  refine(coarsely) {
    this.coarsely = coarsely;
    for (const mesh of [this.body, ...this.clothes]) {
      mesh.visible = !coarsely && this.worn.includes(mesh);
    }
    this.coarse?.mesh.removeFromParent();
    this.coarse = coarsely && this.worn.length ? this.#coarseSurface() : null;
    if (!this.coarse) return;
    this.coarse.recolor();
    this.group.add(this.coarse.mesh);
  }

  #coarseSurface() {
    const [first] = this.worn;
    if (!this.#coarseOf.has(first)) {
      const material = new THREE.MeshLambertMaterial({ vertexColors: true });
      if (this.ghost) asGhost(material);
      this.#coarseOf.set(first, new CoarseSurface(this.worn, this.skeleton, material));
    }
    return this.#coarseOf.get(first);
  }

  // Names and positions of what is drawn, in the camera frame (y up, metres), for tests.
  vertices() {
    const point = new THREE.Vector3();
    const inverse = this.group.parent.matrixWorld.clone().invert();
    this.skeleton.update();
    const meshes = [this.body, ...this.clothes.slice(1)];
    return meshes.map((mesh) => {
      const places = new Float32Array(mesh.geometry.attributes.position.array.length);
      for (let i = 0; i < places.length / 3; i++) {
        mesh.getVertexPosition(i, point).applyMatrix4(mesh.matrixWorld).applyMatrix4(inverse);
        point.toArray(places, 3 * i);
      }
      return { name: mesh.name, places };
    });
  }
}
