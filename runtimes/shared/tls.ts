import type * as tls from "node:tls";
import { type Address, ipFamily } from "../../src/address.ts";
import { Deadline } from "../../src/deadline.ts";
import { SocketError } from "../../src/errors.ts";
import { EventedConnection } from "../../src/evented_connection.ts";
import { handled, ignore, rejected } from "../../src/promises.ts";
import { afterArrivals, type RawConnection, type TlsContext, type TlsSettings } from "../../src/runtime.ts";
import { SendQueue } from "../../src/send_queue.ts";
import type { TlsInfo } from "../../src/tls.ts";
import { describe, readContexts, type SecureContexts } from "./tls_context.ts";
import { TlsTransport } from "./tls_transport.ts";
import { toSocketError } from "./translate.ts";
import { VerifiedCertificates } from "./verified_certificates.ts";

/**
 * TLS by `node:tls` over any connection of an adapter. `halfClose` says whether it goes on sending when the peer has ended its side: where
 * it doesn't, and says nothing, what is written then is an error here.
 */
export function tlsOverConnection(settings: TlsSettings, contexts: SecureContexts, halfClose = true): TlsContext {
  return {
    async secure(raw, begun = null) {
      const connection = new TlsConnection(raw, begun, settings, contexts, halfClose);
      await connection.secured;
      return connection;
    },
  };
}

/** An adapter's `tls()` that has nothing better. */
export async function nodeTls(settings: TlsSettings, keyKinds: true | string = true): Promise<TlsContext> {
  return tlsOverConnection(settings, await readContexts(settings, keyKinds));
}

/** Milliseconds that a peer has to receive the alert, and what was written before it, once TLS has failed. */
const ALERT_TIMEOUT_MS = 1000;
/** Bytes of one write that the writer need not wait for when there is no other on its way. */
const SMALL_WRITE = 65_536;

/** A chunk that is less than this part of its buffer is copied. */
const SMALL_PART = 8;

class TlsConnection extends EventedConnection {
  readonly localAddress: Address;
  readonly remoteAddress: Address;
  /** Resolves when the handshake is done, and rejects with what it failed of. */
  readonly secured: Promise<void>;
  #handshake: PromiseWithResolvers<void> | null = Promise.withResolvers();
  #raw: RawConnection;
  #transport: TlsTransport;
  #socket: tls.TLSSocket;
  #tls: TlsInfo | null = null;
  #readEnded = false;
  #sendEnd: Promise<void> | null = null;
  /** Bytes that the connection below has taken, and those of which that is not known yet, `#queue` included. */
  #sent = 0;
  #pending = 0;
  /** Bytes of the write that the socket has, and what the connection below had sent before it. */
  #writing = 0;
  #mark = 0;
  /** Writes that wait for it; `null` until there are any. */
  #queue: SendQueue | null = null;

  constructor(raw: RawConnection, begun: Uint8Array | null, settings: TlsSettings, contexts: SecureContexts, halfClose: boolean) {
    super();
    this.#raw = raw;
    this.localAddress = raw.localAddress;
    this.remoteAddress = raw.remoteAddress;
    this.secured = this.#handshake!.promise;
    this.#transport = new TlsTransport(raw, begun, (error) => error === null ? this.#cutOff() : this.#gone(error));
    // What ends in order is read to its end first.
    raw.onclose = (error) => error !== null && this.#gone(error);
    const { stream } = this.#transport;
    const socket = this.#socket = settings.isServer ? answer(stream, settings, contexts) : begin(stream, settings, contexts);
    socket.once(settings.isServer ? "secure" : "secureConnect", () => {
      const refusal = settings.isServer ? clientRefusal(socket, settings, contexts) : null;
      if (refusal !== null) this.#gone(protocolError(new Error(refusal), "handshake", raw.remoteAddress));
      else this.#established();
    });
    socket.on("data", (chunk: Uint8Array) => {
      this.#transport.undecryptedBytes = 0;
      // A plain Uint8Array, as all connections give. Node 26 decrypts into 64 KiB that chunks share: whoever keeps a small one would keep that.
      const bytes = new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length);
      this.received(chunk.length * SMALL_PART < chunk.buffer.byteLength ? bytes.slice() : bytes);
    });
    socket.on("end", () => {
      if (this.#handshake !== null) return;
      this.#readEnded = true;
      if (!halfClose && this.#pending > 0) return this.#gone(this.#endedBefore());
      if (!halfClose) this.sendEnded = true;
      this.ended();
    });
    // On Node this affects server sockets; SSL_OP_NO_RENEGOTIATION in the context does it for clients. Deno's rustls never renegotiates.
    socket.disableRenegotiation();
    const failed = (cause: Error): void => {
      this.#gone(protocolError(cause, this.#handshake === null ? "read" : "handshake", raw.remoteAddress));
    };
    socket.on("error", failed);
    // A server-side TLSSocket that no tls.Server has made reports an error after the handshake as this event only (nodejs/node#8803).
    socket.on("_tlsError", failed);
    // An orderly close follows the ends of both sides. An earlier close is a failure that the socket has not reported.
    socket.on("close", () => this.#readEnded || this.dead ? this.#gone(null) : this.#cutOff());
  }

  override get tls(): TlsInfo | null {
    return this.#tls;
  }

  get bytesWritten(): number {
    return this.#sent + this.#takenOfPending;
  }

  get unsent(): number {
    return this.#pending - this.#takenOfPending;
  }

  write(bytes: Uint8Array): void | Promise<void> {
    if (this.dead) return rejected(this.closeError("write"));
    if (this.sendEnded) return rejected(new SocketError("EPIPE", { syscall: "write", address: this.remoteAddress }));
    if (bytes.length === 0) return;
    if (this.#pending > 0) {
      this.#pending += bytes.length;
      return (this.#queue ??= new SendQueue()).push(bytes);
    }
    this.#pending = bytes.length;
    // They are encrypted at once.
    if (bytes.length <= SMALL_WRITE) return void this.#write(bytes, (error) => void (error && this.#writeFailed(error)));
    return this.#done((callback) => this.#write(bytes, callback));
  }

  protected endSend(): Promise<void> {
    return this.#endSend();
  }

  setNoDelay(on: boolean): void {
    this.#raw.setNoDelay(on);
  }

  setKeepAlive(on: boolean | number): void {
    this.#raw.setKeepAlive(on);
  }

  unref(): void {
    this.#raw.unref();
  }

  ref(): void {
    this.#raw.ref();
  }

  afterArrivals(callback: () => void): void {
    // What has been decrypted is delivered in a turn of its own on some runtimes.
    afterArrivals(this.#raw, () => setImmediate(callback));
  }

  protected finish(): void {
    this.#endSend().then(() => this.#gone(null), ignore);
  }

  protected destroy(): void {
    this.#raw.abort();
    this.#gone(null);
  }

  protected pause(): void {
    this.#transport.hold();
  }

  protected resume(): void {
    this.#transport.release();
  }

  /** Of a large write, the connection below is the first to know how much is left. What TLS adds is the little that this is off by. */
  get #takenOfPending(): number {
    return Math.min(this.#writing, this.#raw.bytesWritten - this.#mark);
  }

  #write(bytes: Uint8Array, callback: (error?: Error | null) => void): void {
    if (this.#writing === 0) this.#mark = this.#raw.bytesWritten;
    this.#writing += bytes.length;
    this.#socket.write(bytes, (error) => {
      this.#sent += bytes.length;
      this.#pending -= bytes.length;
      this.#writing -= bytes.length;
      this.#mark = this.#raw.bytesWritten;
      callback(error);
      if (!error && this.#writing === 0) this.#flush();
    });
  }

  /** Hands on all that waits, in one piece. */
  #flush(): void {
    const queue = this.#queue;
    if (queue === null || queue.empty) return;
    this.#socket.cork();
    for (const bytes of queue.begin()) {
      this.#write(bytes, (error) => {
        if (error) this.#writeFailed(error);
        else queue.took(bytes.length);
      });
    }
    this.#socket.uncork();
  }

  #established(): void {
    const handshake = this.#handshake;
    if (handshake === null) return;
    this.#handshake = null;
    this.#tls = describeSession(this.#socket);
    // Node 22 emits "secure" again when a client refuses to renegotiate, and would verify a certificate that nobody has shown.
    this.#socket.removeAllListeners("secure");
    handshake.resolve();
  }

  /** Sends close_notify, behind all that was written; resolves when it has been handed to the connection below. */
  #endSend(): Promise<void> {
    return this.#sendEnd ??= this.#done((callback) => {
      // Deno hands it on a moment after it has said so.
      const end = () => this.#socket.end(() => setImmediate(callback));
      if (this.#queue === null || this.#queue.empty) end();
      else this.#queue.drained().then(end, callback);
    });
  }

  /** The connection below has ended, or the socket has closed. Only the peer's close_notify makes that the end of the stream: anybody can send a FIN. */
  #cutOff(): void {
    // The last bytes may be on their way through the socket.
    setImmediate(() => {
      if (this.#readEnded) return;
      const detail = this.#handshake === null
        ? "the peer ended the connection, but not the TLS stream: what it sent may have been cut short"
        : "the peer went away before the end of the TLS handshake";
      const syscall = this.#handshake === null ? "read" : "handshake";
      this.#gone(new SocketError("ECONNRESET", { syscall, address: this.remoteAddress }, detail));
    });
  }

  #endedBefore(): SocketError {
    const detail = "the peer ended its side before it had all, and this runtime sends nothing after that";
    return new SocketError("ECONNRESET", { syscall: "write", address: this.remoteAddress }, detail);
  }

  /** The connection is gone, `null` for in order. */
  #gone(error: SocketError | null): void {
    const handshake = this.#handshake;
    this.#handshake = null;
    this.lost(error);
    this.#queue?.fail(this.closeError("write"));
    this.#socket.destroy();
    const dispose = (): void => {
      this.#transport.stop();
      this.#raw.close();
    };
    if (error === null) dispose();
    else if (error.code === "EPROTO") {
      // An alert that tells the peer is on its way. A peer that takes nothing must not keep the socket.
      setImmediate(() => {
        dispose();
        if (this.#raw.unsent > 0) new Deadline().start(ALERT_TIMEOUT_MS, () => this.#raw.abort());
      });
    } else {
      this.#transport.stop();
      this.#raw.abort();
    }
    handshake?.reject(error ?? new SocketError("ECONNRESET", { syscall: "handshake", address: this.remoteAddress }));
  }

  #done(start: (callback: (error?: Error | null) => void) => void): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    start((error) => {
      if (!error) resolve();
      else reject(this.#writeFailed(error));
    });
    return handled(promise);
  }

  #writeFailed(cause: Error): SocketError {
    const error = this.dead ? this.closeError("write") : protocolError(cause, "write", this.remoteAddress);
    this.#queue?.fail(error);
    return error;
  }
}

function answer(stream: TlsTransport["stream"], settings: TlsSettings, contexts: SecureContexts): tls.TLSSocket {
  const { clientCertificate, alpnProtocols, sni } = settings;
  const { TLSSocket } = process.getBuiltinModule("node:tls");
  return new TLSSocket(stream, {
    isServer: true,
    secureContext: contexts.fallback,
    requestCert: clientCertificate !== "none",
    rejectUnauthorized: clientCertificate === "require",
    ...(alpnProtocols.length > 0 ? { ALPNProtocols: [...alpnProtocols] } : {}),
    ...(sni.size > 0 ? { SNICallback: (name, done) => done(null, contexts.find(name) ?? contexts.fallback) } : {}),
  });
}

function begin(stream: TlsTransport["stream"], settings: TlsSettings, contexts: SecureContexts): tls.TLSSocket {
  const { servername, alpnProtocols, verifyServer } = settings;
  return process.getBuiltinModule("node:tls").connect({
    socket: stream,
    secureContext: contexts.fallback,
    // What the certificate is compared with; SNI has names only, no IP addresses (RFC 6066, section 3).
    ...(servername === null ? {} : { host: servername }),
    ...(servername === null || ipFamily(servername) !== null ? {} : { servername }),
    rejectUnauthorized: verifyServer,
    ...(alpnProtocols.length > 0 ? { ALPNProtocols: [...alpnProtocols] } : {}),
  });
}

/** Why a client is refused that has done its part of the handshake; `null` when it isn't. */
function clientRefusal(socket: tls.TLSSocket, settings: TlsSettings, contexts: SecureContexts): string | null {
  const { clientCertificate } = settings;
  if (clientCertificate === "none") return null;
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) return clientCertificate === "require" ? "the client has shown no certificate" : null;
  // The runtimes leave the verdict to tls.Server, which asks for it as this does. On Node it is an error, on Deno its code.
  const { ssl } = socket as unknown as { ssl: { verifyError(): (Error & { code?: string }) | string | null } };
  const verdict = ssl.verifyError();
  if (verdict) return `the client's certificate: ${typeof verdict === "string" ? verdict : verdict.code ?? verdict.message}`;
  const refusal = VerifiedCertificates.by(contexts.ca).refusal(certificate, {
    isSessionReused: () => socket.isSessionReused(),
    getChain: () => socket.getPeerCertificate(true),
  });
  return refusal === null ? null : `the client's certificate: ${refusal}`;
}

function describeSession(socket: tls.TLSSocket): TlsInfo {
  const cipher = socket.getCipher();
  const certificate = socket.getPeerX509Certificate();
  const { servername } = socket as unknown as { servername: string | false | null };
  return {
    protocol: socket.getProtocol() ?? "",
    cipher: cipher.standardName ?? cipher.name,
    alpnProtocol: socket.alpnProtocol || null,
    servername: servername || null,
    resumed: socket.isSessionReused(),
    peerCertificate: certificate === undefined ? null : describe(certificate),
  };
}

/** An error of `node:tls`: of the connection below, or of TLS itself. */
function protocolError(cause: Error, syscall: string, address: Address): SocketError {
  if (cause instanceof SocketError) return cause;
  const { code, reason, message } = cause as Error & { code?: string; reason?: string };
  if (code === "ECONNRESET" || code === "EPIPE") return toSocketError(cause, syscall, address);
  return new SocketError("EPROTO", { syscall, address, cause }, `TLS failed: ${reason ?? message.trim()}`);
}
