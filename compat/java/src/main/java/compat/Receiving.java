package compat;

import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;

import com.taobao.metamorphosis.Message;
import com.taobao.metamorphosis.client.MetaMessageSessionFactory;
import com.taobao.metamorphosis.client.StatsResult;
import com.taobao.metamorphosis.client.TopicBrowser;
import com.taobao.metamorphosis.client.consumer.ConsumerConfig;
import com.taobao.metamorphosis.client.consumer.LoadBalanceStrategy;
import com.taobao.metamorphosis.client.consumer.MessageConsumer;
import com.taobao.metamorphosis.client.consumer.MessageListener;
import com.taobao.metamorphosis.cluster.Partition;
import com.taobao.metamorphosis.consumer.MessageIterator;

/** Consumers, the topic browser, synchronous gets and statistics. */
final class Receiving {
    private static final int MEBIBYTE = 1024 * 1024;

    private final Factories factories;
    private final Map<String, MessageConsumer> consumers = new ConcurrentHashMap<>();

    Receiving(Factories factories) {
        this.factories = factories;
    }

    /**
     * "factory", "consumer", "group", "topic", "strategy" or none: events "message" of this call, from now until
     * "stop-consumer". "ack-every": acknowledge by hand, each time after so many messages.
     */
    void consume(Driver.Call call) throws Exception {
        ConsumerConfig config = new ConsumerConfig(call.text("group"));
        config.setCommitOffsetPeriodInMills(call.number("commit-period", 200));
        config.setMaxDelayFetchTimeInMills(call.number("max-delay", 200));
        if (call.text("strategy") != null) {
            config.setLoadBalanceStrategyType(LoadBalanceStrategy.Type.valueOf(call.text("strategy")));
        }
        MessageConsumer consumer = this.factories.of(call).createConsumer(config);
        int size = (int) call.number("size", MEBIBYTE);
        consumer.subscribe(call.text("topic"), size, new Printing(call)).completeSubscribe();
        this.consumers.put(call.text("consumer"), consumer);
    }

    void stop(Driver.Call call) throws Exception {
        this.consumers.remove(call.text("consumer")).shutdown();
    }

    /** "factory", "topic": an event "message" for everything the topic holds. */
    void browse(Driver.Call call) throws Exception {
        int size = (int) call.number("size", MEBIBYTE);
        TopicBrowser browser =
                this.factories.of(call).createTopicBrowser(call.text("topic"), size, 10, TimeUnit.SECONDS);
        Iterator<Message> messages = browser.iterator();
        while (messages.hasNext()) {
            print(call, messages.next());
        }
        browser.shutdown();
    }

    /** "factory", "topic", "partition", "offset", "size": an event "message" for each of one answer. */
    void get(Driver.Call call) throws Exception {
        MessageConsumer consumer = this.factories.of(call).createConsumer(new ConsumerConfig("compat-get"));
        try {
            MessageIterator messages = consumer.get(call.text("topic"), new Partition(call.text("partition")),
                    call.number("offset", 0), (int) call.number("size", MEBIBYTE));
            while (messages != null && messages.hasNext()) {
                print(call, messages.next());
            }
            call.reply("answer", "moved-or-nothing", messages == null);
        } finally {
            consumer.shutdown();
        }
    }

    void partitions(Driver.Call call) {
        List<String> names = new ArrayList<>();
        for (Partition partition : this.factories.of(call).getPartitionsForTopic(call.text("topic"))) {
            names.add(partition.toString());
        }
        call.reply("partitions", "names", names);
    }

    /** "factory", "item" or none: an event "stats" for each connected broker. */
    void stats(Driver.Call call) throws Exception {
        MetaMessageSessionFactory factory = this.factories.of(call);
        Map<?, StatsResult> results =
                call.text("item") == null ? factory.getStats() : factory.getStats(call.text("item"));
        for (Map.Entry<?, StatsResult> entry : results.entrySet()) {
            Map<String, String> values = new HashMap<>();
            for (String key : entry.getValue().getStatsKeySet()) {
                values.put(key, entry.getValue().getValue(key));
            }
            call.reply("stats", "broker", entry.getKey().toString(), "values", values);
        }
    }

    private static void print(Driver.Call call, Message message) {
        call.reply("message", "id", message.getId(), "partition", String.valueOf(message.getPartition()),
                "attribute", message.getAttribute(), "length", message.getData().length,
                "sha256", sha256(message.getData()));
    }

    private static String sha256(byte[] data) {
        try {
            StringBuilder text = new StringBuilder();
            for (byte octet : MessageDigest.getInstance("SHA-256").digest(data)) {
                text.append(String.format("%02x", octet));
            }
            return text.toString();
        } catch (java.security.NoSuchAlgorithmException error) {
            throw new IllegalStateException(error);
        }
    }

    private static final class Printing implements MessageListener {
        private final Driver.Call call;
        private final long ackEvery;
        private long received;

        Printing(Driver.Call call) {
            this.call = call;
            this.ackEvery = call.number("ack-every", 0);
        }

        @Override
        public synchronized void recieveMessages(Message message) {
            print(this.call, message);
            if (this.ackEvery > 0) {
                message.getPartition().setAutoAck(false);
                this.received++;
                if (this.received % this.ackEvery == 0) {
                    message.getPartition().ack();
                }
            }
        }

        @Override
        public Executor getExecutor() {
            return null;
        }
    }
}
