/** Bytes of a line that are shown. Longer lines are cut there, as a line that never ends must not fill the server's memory. */
const MAX_LINE_BYTES = 64 * 1024;

const NEWLINE = 10;

/** Shows the lines of a child's output, each with a mark before it, in memory that is bounded and in time that is linear. */
export class LineForwarder {
  #mark: string;
  #show: (text: string) => void;
  #decoder = new TextDecoder();
  /** The beginning of the line that has not ended yet, at most `MAX_LINE_BYTES`; made when a line does not end with its chunk. */
  #buffer: Uint8Array | null = null;
  #length = 0;
  /** Bytes of that line that were left out. */
  #cut = 0;

  /**
   * @param mark What stands before each line.
   * @param show Gets whole lines, without the newline of the last one.
   */
  constructor(mark: string, show: (text: string) => void) {
    this.#mark = mark;
    this.#show = show;
  }

  /** Takes the next chunk of output; nothing of it is kept. */
  push(chunk: Uint8Array): void {
    const lines: string[] = [];
    let start = 0;
    for (let end; (end = chunk.indexOf(NEWLINE, start)) >= 0; start = end + 1) {
      this.#append(chunk.subarray(start, end));
      lines.push(this.#take());
    }
    this.#append(chunk.subarray(start));
    if (lines.length > 0) this.#show(lines.join("\n"));
  }

  /** Shows what is left of a line without an end. */
  end(): void {
    if (this.#length > 0) this.#show(this.#take());
    this.#buffer = null;
  }

  #append(bytes: Uint8Array): void {
    const kept = bytes.subarray(0, MAX_LINE_BYTES - this.#length);
    this.#cut += bytes.length - kept.length;
    if (kept.length === 0) return;
    const buffer = this.#room(this.#length + kept.length);
    buffer.set(kept, this.#length);
    this.#length += kept.length;
  }

  /** The buffer, with room for so many bytes: it grows twofold, so that copying stays linear. */
  #room(size: number): Uint8Array {
    const old = this.#buffer;
    if (old !== null && old.length >= size) return old;
    const grown = new Uint8Array(Math.min(MAX_LINE_BYTES, Math.max(size, 2 * (old?.length ?? 0))));
    if (old !== null) grown.set(old.subarray(0, this.#length));
    return this.#buffer = grown;
  }

  #take(): string {
    let end = this.#length;
    // A character of UTF-8 that the cut would halve is left out.
    if (this.#cut > 0) {
      while (end > 0 && (this.#buffer![end - 1]! & 0xc0) === 0x80) end--;
      if (end > 0 && this.#buffer![end - 1]! >= 0xc0) end--;
      else end = this.#length;
    }
    const line = end === 0 ? "" : this.#decoder.decode(this.#buffer!.subarray(0, end));
    const cut = this.#cut + this.#length - end;
    this.#length = 0;
    this.#cut = 0;
    return `${this.#mark}${line}${cut > 0 ? ` [${cut} bytes more were cut]` : ""}`;
  }
}
