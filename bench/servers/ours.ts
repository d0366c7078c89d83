/** Echo on this package, as its README shows it: `ours.ts [limited|unlimited]`. */
import { formatAddress, serve } from "../../mod.ts";

const LIMITS = {
  limited: {
    maxConnectionsPerAddress: 10_000,
    maxConnectionRatePerAddress: 1_000_000,
    deny: ["192.0.2.0/24"],
    requestTimeout: 3_600_000,
    minReadRate: 1,
  },
  unlimited: {
    maxConnections: Infinity,
    idleTimeout: Infinity,
    writeTimeout: Infinity,
    maxBackpressure: Infinity,
    maxTotalBackpressure: Infinity,
  },
};

const server = await serve("tcp://127.0.0.1:0", async (conn) => {
  try {
    for await (const chunk of conn) await conn.write(chunk);
  } catch {
    // The load generator resets its connections.
  }
}, LIMITS[process.argv[2] as keyof typeof LIMITS]);
console.log(`listening ${formatAddress(server.serverAddress)}`);
