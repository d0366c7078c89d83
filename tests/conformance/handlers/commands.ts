/** A handler for connections that does what the first chunk says; what the client can't see for itself, it throws. */
import { BaseRequestHandler, type SocketError } from "@sockets/server";

/** How a handler tells the test something that its client can't see: as its error. */
class Told extends Error {}

/** Commands that begin with an answer; those that the handler does not begin by writing. */
export const ANSWERED: Set<string> = new Set(["echo", "into", "keep", "count", "watch", "close", "deaf", "merge", "streams"]);

export default class Commands extends BaseRequestHandler {
  override async handle(): Promise<void> {
    const { request } = this;
    const command = new TextDecoder().decode(await request.read() ?? undefined);
    // The client's own words come after this.
    if (ANSWERED.has(command)) await request.write("+");
    const codes: string[] = [];
    const note = (error: unknown) => void codes.push((error as SocketError).code);
    switch (command) {
      case "echo":
        for await (const chunk of request) await request.write(chunk);
        return;
      case "into": {
        const buffer = new Uint8Array(999);
        for (let size; (size = await request.readInto(buffer)) !== null;) await request.write(buffer.subarray(0, size));
        return;
      }
      case "keep": {
        const chunks: Uint8Array[] = [];
        for await (const chunk of request) {
          chunks.push(chunk);
          await request.write(new Uint8Array(chunk));
          chunk.fill(chunks.length);
        }
        throw new Told(JSON.stringify(chunks.map((chunk) => [chunk.constructor.name, ...chunk])));
      }
      case "count": {
        let size = 0;
        for await (const chunk of request) size += chunk.length;
        await request.write(`got ${size}`);
        return;
      }
      case "bye": {
        await request.write("bye");
        await request.closeWrite();
        await request.closeWrite();
        await Promise.resolve(request.write("more")).catch(note);
        const chunk = await request.read();
        throw new Told(`${codes} ${new TextDecoder().decode(chunk ?? undefined)}`);
      }
      case "now":
        await request.write("now");
        await request.read();
        return;
      case "flood": {
        const piece = new Uint8Array(300_000);
        for (let i = 0; i < 20; i++) void request.write(piece.slice().fill(i));
        return;
      }
      case "watch": {
        const { signal } = request;
        const lost = new Promise((resolve) => signal.addEventListener("abort", resolve));
        await Promise.all([lost, request.closed]);
        throw new Told(`${(signal.reason as SocketError).code} ${request.error?.code}`);
      }
      case "close": {
        const { signal } = request;
        let text = "";
        for await (const chunk of request) text += new TextDecoder().decode(chunk);
        await request.close();
        throw new Told(`${text} ${(signal.reason as SocketError).code} ${request.error}`);
      }
      case "abort": {
        const read = request.read().catch(note);
        // More than any buffer on the way takes.
        const write = (async () => {
          for (;;) await request.write(new Uint8Array(1 << 20));
        })().catch(note);
        await request.read().catch((error) => codes.push(error.name));
        await new Promise((resolve) => setTimeout(resolve, 20));
        request.abort();
        request.abort();
        await Promise.all([read, write]);
        await request.read().catch(note);
        await request.closeWrite().catch(note);
        await Promise.resolve(request.write("x")).catch(note);
        await request.close();
        await request.closed;
        throw new Told(codes.join(" "));
      }
      case "patience": {
        request.timeout = 100;
        let taken = 0;
        try {
          for (;; taken += 1 << 16) await request.write(new Uint8Array(1 << 16));
        } catch (error) {
          request.abort();
          throw new Told(`${(error as SocketError).code} ${taken < 32 << 20}`);
        }
      }
      case "deaf":
        await request.closed;
        return;
      case "merge": {
        // In how many chunks 200 bytes are read that have all come before.
        while (request.bytesRead < command.length + 200) await new Promise((resolve) => setTimeout(resolve, 1));
        let [chunks, size] = [0, 0];
        for (let chunk; size < 200 && (chunk = await request.read()) !== null; size += chunk.length) chunks++;
        await request.write(String(chunks));
        return;
      }
      case "timeout":
        request.timeout = 20;
        for (let i = 0; i < 2; i++) await request.read().catch(note);
        await request.write(codes.join(" "));
        request.timeout = 0;
        for await (const chunk of request) await request.write(chunk);
        return;
      case "streams":
        return await request.readable.pipeTo(request.writable);
      case "options":
        request.setNoDelay(false);
        request.setNoDelay();
        request.setKeepAlive();
        request.setKeepAlive(false);
        await request.write("set");
    }
  }
}
