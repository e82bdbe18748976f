// Time: given by the video while it plays, or by a clock without one; the scene shows its frame.

export class Player {
  #asked = null; // the last frame that was sought, until the video plays from it
  #clock = 0;
  #pending = false;

  // video: null if there is none.
  constructor(clip, state) {
    Object.assign(this, { clip, state, video: null });
    state.watch(["speed", "loop", "sound"], () => this.#adjust());
  }

  // Takes a <video> that can play, or null; continues at the current frame.
  use(video) {
    this.pause();
    this.video = video;
    if (!video) return;
    video.addEventListener("ended", () => this.state.set({ playing: false }));
    video.addEventListener("pause", () => this.#rest());
    video.addEventListener("seeked", () => this.#sought());
    if (video.requestVideoFrameCallback) {
      const presented = (_, { mediaTime }) => {
        if (video !== this.video) return;
        if (this.#asked === null) this.#show(Math.round(mediaTime * this.clip.fps));
        video.requestVideoFrameCallback(presented);
      };
      video.requestVideoFrameCallback(presented);
    }
    this.#adjust();
    this.seek(this.state.get("frame"));
  }

  // The video may be ahead of what its last callback told: both go to the frame of its time.
  #rest() {
    this.state.set({ playing: false });
    if (this.video && !this.video.seeking) {
      this.seek(Math.floor(this.video.currentTime * this.clip.fps + 1e-3));
    }
  }

  get last() {
    return this.clip.frames - 1;
  }

  #show(frame) {
    this.state.set({ frame: Math.min(Math.max(frame, 0), this.last) });
  }

  #adjust() {
    if (!this.video) return;
    const { speed, loop, sound } = this.state.values;
    this.video.playbackRate = speed;
    this.video.loop = loop;
    this.video.muted = !sound;
  }

  seek(frame) {
    this.#show(frame);
    this.#asked = this.state.get("frame");
    this.#clock = this.#asked / this.clip.fps;
    if (!this.video) return;
    // One seek at a time, then the newest request, so that scrubbing keeps showing frames.
    this.#pending = this.video.seeking;
    if (!this.#pending) this.#seekVideo();
  }

  #seekVideo() {
    // The middle of a frame's time is inside the frame despite rounding.
    this.video.currentTime = (this.#asked + 0.5) / this.clip.fps;
  }

  #sought() {
    if (this.#pending && this.#asked !== null) {
      this.#pending = false;
      this.#seekVideo();
    } else if (this.state.get("playing")) {
      this.#asked = null;
    }
  }

  step(frames) {
    this.pause();
    this.seek(this.state.get("frame") + frames);
  }

  toggle() {
    if (this.state.get("playing")) this.pause();
    else this.play();
  }

  pause() {
    if (this.video && !this.video.paused) this.video.pause();
    this.state.set({ playing: false });
  }

  async play() {
    if (this.clip.frames < 2) return;
    if (this.state.get("frame") >= this.last) this.seek(0);
    this.state.set({ playing: true });
    if (this.video) {
      if (!this.video.seeking) this.#asked = null;
      await this.video.play().catch(() => this.state.set({ playing: false }));
      if (!this.video.requestVideoFrameCallback) this.#run(() => this.video.currentTime);
    } else {
      this.#asked = null;
      this.#clock = this.state.get("frame") / this.clip.fps;
      let before = performance.now();
      this.#run((now) => {
        this.#clock += (Math.max(0, now - before) / 1000) * this.state.get("speed");
        before = now;
        return this.#clock;
      });
    }
  }

  // Shows the frame at `timeAt(now)` on every refresh of the screen while playing.
  #run(timeAt) {
    const tick = (now) => {
      if (!this.state.get("playing")) return;
      const frame = Math.floor(timeAt(now) * this.clip.fps + 1e-3);
      if (frame > this.last && !this.video) {
        if (!this.state.get("loop")) {
          this.#show(this.last);
          this.state.set({ playing: false });
          return;
        }
        this.#clock = 0;
        this.#show(0);
      } else this.#show(frame);
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }
}

// Resolves when a <video> or <img> can be shown; rejects if it cannot.
export function shown(element, source) {
  return new Promise((resolve, reject) => {
    element.addEventListener("loadedmetadata", resolve, { once: true });
    element.addEventListener("load", resolve, { once: true });
    element.addEventListener("error", reject, { once: true });
    element.src = source;
  });
}
