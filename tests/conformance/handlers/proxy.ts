/** A handler that tells what it knows of a client behind a load balancer, and then echoes. */
import { BaseRequestHandler } from "@sockets/server";

export default class Facts extends BaseRequestHandler {
  override async handle(): Promise<void> {
    const { clientAddress, request: { remoteAddress, localAddress, proxy } } = this;
    const uniqueId = proxy?.tlvs.uniqueId;
    const facts = {
      clientAddress,
      remoteAddress,
      localAddress,
      proxy: proxy === null ? null : {
        version: proxy.version,
        command: proxy.command,
        source: proxy.source,
        destination: proxy.destination,
        authority: proxy.tlvs.authority ?? null,
        uniqueId: uniqueId === undefined ? null : [...uniqueId],
        size: proxy.bytes.length,
      },
    };
    await this.request.write(JSON.stringify(facts) + "\n");
    for await (const chunk of this.request) await this.request.write(chunk);
  }
}
