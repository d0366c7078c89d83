/** What the servers of ours_workers.ts do with a connection. */
import { BaseRequestHandler, SocketError } from "../../mod.ts";

/** Sends back what comes until the connection ends. */
export class echo extends BaseRequestHandler {
  override async handle(): Promise<void> {
    try {
      for await (const chunk of this.request) {
        this.prepare();
        await this.request.write(chunk);
      }
    } catch (error) {
      // The load generator resets its connections.
      if (!(error instanceof SocketError)) throw error;
    }
  }

  /** What is done before an answer. */
  prepare(): void {}
}

/** Computes for 200 ms before each answer. */
export class compute extends echo {
  override prepare(): void {
    for (const end = performance.now() + 200; performance.now() < end;);
  }
}

/** Sends back one chunk. */
export class once extends BaseRequestHandler {
  override async handle(): Promise<void> {
    const chunk = await this.request.read();
    if (chunk !== null) await this.request.write(chunk);
  }
}
