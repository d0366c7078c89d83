import type { Duplex } from "node:stream";
import { SocketError } from "../../src/errors.ts";
import type { RawConnection, Receiver } from "../../src/runtime.ts";

/**
 * Encrypted bytes that may arrive without a byte of application data among them. Node accepts any number of key updates (RFC 8446, section
 * 4.6.3): one costs 27 bytes on the wire and about 10 µs here. Deno and Bun accept 32 in a row.
 */
const MAX_UNDECRYPTED_BYTES = 262_144;

/**
 * The connection below TLS as the stream that `node:tls` wants. Neither its end nor its errors go that way, where each runtime makes
 * something else of them: they are reported to whoever made it.
 */
export class TlsTransport implements Receiver {
  readonly stream: Duplex;
  /** Encrypted bytes received since the last application data; the connection resets this to 0 with each decrypted chunk. */
  undecryptedBytes = 0;
  #raw: RawConnection;
  /** Encrypted bytes that come before what the connection gives. */
  #begun: Uint8Array | null;
  #ended: (error: SocketError | null) => void;
  #wanted = false;
  #held = false;
  #stopped = false;
  #destroy: Duplex["destroy"];

  /**
   * @param raw The connection.
   * @param begun What was read from it before; `null` for nothing.
   * @param ended Is told of the end of what it receives, `null`, or of what it was lost of.
   */
  constructor(raw: RawConnection, begun: Uint8Array | null, ended: (error: SocketError | null) => void) {
    this.#raw = raw;
    this.#begun = begun !== null && begun.length > 0 ? begun : null;
    this.#ended = ended;
    const { Duplex } = process.getBuiltinModule("node:stream");
    this.stream = new Duplex({
      allowHalfOpen: true,
      read: () => {
        this.#wanted = true;
        this.#pull();
      },
      write: (chunk, _encoding, done) => this.#settle(raw.write(chunk), done),
      writev: (chunks, done) => this.#settle(raw.write(Buffer.concat(chunks.map(({ chunk }) => chunk))), done),
      final: (done) => this.#settle(raw.closeWrite(), done),
    });
    // Deno destroys the stream before it has sent the alert that says why. When it is over is decided here.
    this.#destroy = this.stream.destroy;
    this.stream.destroy = () => this.stream;
  }

  /** Stops reading. What is decrypted and not read yet would have no bound otherwise: not every runtime stops by itself. */
  hold(): void {
    this.#held = true;
  }

  /** Goes on reading. */
  release(): void {
    this.#held = false;
    this.#pull();
  }

  /** Nothing goes through any more. */
  stop(): void {
    this.#stopped = true;
    this.#destroy.call(this.stream);
  }

  /** What is encrypted has come. */
  received(chunk: Uint8Array | null): void {
    if (this.#stopped) return;
    this.#wanted = false;
    if (chunk === null) return this.#ended(null);
    this.undecryptedBytes += chunk.length;
    if (this.undecryptedBytes <= MAX_UNDECRYPTED_BYTES) return void this.stream.push(chunk);
    const detail = `TLS failed: ${this.undecryptedBytes} bytes received without any data in them`;
    this.#ended(new SocketError("EPROTO", { syscall: "read", address: this.#raw.remoteAddress }, detail));
  }

  /** The connection is lost. */
  failed(error: unknown): void {
    if (this.#stopped) return;
    this.#wanted = false;
    this.#ended(error as SocketError);
  }

  #pull(): void {
    if (!this.#wanted || this.#held || this.#raw.reading || this.#stopped) return;
    const begun = this.#begun;
    if (begun !== null) {
      this.#begun = null;
      return this.received(begun);
    }
    let chunk: Uint8Array | null | undefined;
    try {
      chunk = this.#raw.receive(this);
    } catch (error) {
      return this.failed(error);
    }
    if (chunk !== undefined) this.received(chunk);
  }

  /** A failure is told to `ended` alone. */
  #settle(pending: void | Promise<void>, done: () => void): void {
    if (pending === undefined) return done();
    pending.then(done, (error) => {
      if (!this.#stopped) this.#ended(error);
      done();
    });
  }
}
