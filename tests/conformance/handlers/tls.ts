/** Handlers that the tests of TLS run in threads and processes too. */
import { BaseRequestHandler, type StartTlsOptions, StreamRequestHandler, type TlsOptions } from "@sockets/server";

/** Tells the peer what the handshake came to, and then echoes. */
export default class TellingHandler extends BaseRequestHandler {
  override async handle(): Promise<void> {
    await this.request.write(JSON.stringify(this.request.tls) + "\n");
    for await (const chunk of this.request) await this.request.write(chunk);
  }
}

/** Begins TLS when the peer asks for it, with what the server's `data` says, and then echoes. */
export class UpgradingHandler extends BaseRequestHandler {
  override async handle(): Promise<void> {
    await this.request.read();
    await this.request.write("go");
    await this.request.startTls(this.server.data as TlsOptions);
    for await (const chunk of this.request) await this.request.write(chunk);
  }
}

/** Echoes. */
export class EchoHandler extends BaseRequestHandler {
  override async handle(): Promise<void> {
    for await (const chunk of this.request) await this.request.write(chunk);
  }
}

/** What {@linkcode RequestingHandler} is asked for TLS with. */
export const REQUEST = "TLS please\n";

/** Begins TLS behind a request that the peer doesn't wait for the answer to, as the server's `data` says, and then echoes. */
export class RequestingHandler extends StreamRequestHandler {
  override timeout = 10_000;

  override async handle(): Promise<void> {
    const { tls, how } = this.server.data as { tls: TlsOptions; how?: StartTlsOptions };
    await this.rfile.readExactly(REQUEST.length);
    await this.request.startTls(tls, how);
    for (let chunk; (chunk = await this.rfile.read()) !== null;) await this.request.write(chunk);
  }
}
