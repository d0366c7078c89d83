/** Handlers that the tests of TLS run in threads and processes too. */
import { BaseRequestHandler } from "@sockets/server";

/** Tells the peer what the handshake came to, and then echoes. */
export default class TellingHandler extends BaseRequestHandler {
  override async handle(): Promise<void> {
    await this.request.write(JSON.stringify(this.request.tls) + "\n");
    for await (const chunk of this.request) await this.request.write(chunk);
  }
}
