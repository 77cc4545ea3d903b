package compat;

import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

import org.codehaus.jackson.map.ObjectMapper;

/**
 * A process that drives the original Java client on behalf of a test.
 *
 * Each line of standard input is a JSON object {"call": number, "do": name, ...}. Each line of standard output is a JSON
 * object {"call": number, "event": name, ...}; the last one of a call has the event "done" or "failed". Calls run side by
 * side. The end of standard input ends the process.
 */
public final class Driver {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final PrintStream OUT =
            new PrintStream(new FileOutputStream(FileDescriptor.out), false, StandardCharsets.UTF_8);

    private final ExecutorService calls = Executors.newCachedThreadPool();
    private final Factories factories = new Factories();
    private final Sending sending = new Sending(this.factories);
    private final Receiving receiving = new Receiving(this.factories);
    private final Configuration configuration = new Configuration();
    private final Operations operations = new Operations();
    private final Transacting transacting = new Transacting();

    public static void main(String[] arguments) throws Exception {
        System.setOut(System.err); // what libraries print is no reply
        new Driver().serve();
        System.exit(0); // the client's threads are not all daemons
    }

    private void serve() throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            @SuppressWarnings("unchecked")
            Call call = new Call((Map<String, Object>) JSON.readValue(line, Map.class));
            this.calls.execute(() -> this.run(call));
        }
    }

    private void run(Call call) {
        try {
            this.dispatch(call);
            call.reply("done");
        } catch (Throwable error) {
            call.reply("failed", "error", error.toString());
        }
    }

    private void dispatch(Call call) throws Exception {
        switch (call.text("do")) {
            case "open": this.factories.open(call); break;
            case "close": this.factories.close(call); break;
            case "publish": this.sending.publish(call); break;
            case "send": this.sending.send(call); break;
            case "send-callback": this.sending.sendWithCallback(call); break;
            case "send-one-way": this.sending.sendOneWay(call); break;
            case "consume": this.receiving.consume(call); break;
            case "stop-consumer": this.receiving.stop(call); break;
            case "browse": this.receiving.browse(call); break;
            case "get": this.receiving.get(call); break;
            case "partitions": this.receiving.partitions(call); break;
            case "stats": this.receiving.stats(call); break;
            case "configuration": this.configuration.load(call); break;
            case "cron": this.configuration.cron(call); break;
            case "close-partitions": this.operations.closePartitions(call); break;
            case "evaluate": this.configuration.evaluate(call); break;
            case "reload": this.operations.reload(call); break;
            case "decide": this.operations.decide(call); break;
            case "open-transactions": this.transacting.open(call); break;
            case "close-transactions": this.transacting.close(call); break;
            case "local-transaction": this.transacting.local(call); break;
            case "xa-transaction": this.transacting.xa(call); break;
            default: throw new IllegalArgumentException("no such command: " + call.text("do"));
        }
    }

    static void write(Map<String, Object> reply) {
        try {
            byte[] line = (JSON.writeValueAsString(reply) + "\n").getBytes(StandardCharsets.UTF_8);
            synchronized (OUT) {
                OUT.write(line, 0, line.length);
                OUT.flush();
            }
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }

    /** One command and its replies. */
    static final class Call {
        private final Map<String, Object> fields;

        Call(Map<String, Object> fields) {
            this.fields = fields;
        }

        Object field(String name) {
            return this.fields.get(name);
        }

        String text(String name) {
            return (String) this.fields.get(name);
        }

        long number(String name, long otherwise) {
            Object value = this.fields.get(name);
            return value == null ? otherwise : ((Number) value).longValue();
        }

        void reply(String event, Object... namesAndValues) {
            Map<String, Object> reply = new LinkedHashMap<>();
            reply.put("call", this.fields.get("call"));
            reply.put("event", event);
            for (int i = 0; i < namesAndValues.length; i += 2) {
                reply.put((String) namesAndValues[i], namesAndValues[i + 1]);
            }
            Driver.write(reply);
        }
    }
}
