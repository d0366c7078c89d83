/** Replicas that say who they are, for a test that kills what supervises them. */
import { formatAddress, Replicas } from "@sockets/server";

const replicas = new Replicas("tcp://127.0.0.1:0", new URL("../handlers/replica.ts", import.meta.url), { count: 3 });
await replicas.activate();
console.log(JSON.stringify({ listening: formatAddress(replicas.serverAddress), ids: replicas.members.map(({ id }) => id) }));
await replicas.serveForever();
