package compat;

import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

import com.taobao.metamorphosis.Message;
import com.taobao.metamorphosis.client.extension.producer.AsyncMessageProducer;
import com.taobao.metamorphosis.client.producer.MessageProducer;
import com.taobao.metamorphosis.client.producer.SendMessageCallback;
import com.taobao.metamorphosis.client.producer.SendResult;

/** Producers. Each "send" command has "topic" and "messages", a list of {"body": base64, "attribute": text or null}. */
final class Sending {
    private final Factories factories;
    private final Map<String, MessageProducer> producers = new ConcurrentHashMap<>();

    Sending(Factories factories) {
        this.factories = factories;
    }

    /** "factory", "producer", "topic", and "one-way": whether the producer waits for no reply. */
    void publish(Driver.Call call) throws Exception {
        MessageProducer producer = Boolean.TRUE.equals(call.field("one-way"))
                ? this.factories.of(call).createAsyncProducer()
                : this.factories.of(call).createProducer();
        producer.publish(call.text("topic"));
        this.producers.put(call.text("producer"), producer);
    }

    /** One after the other; an event "sent" each. */
    void send(Driver.Call call) throws Exception {
        MessageProducer producer = this.producers.get(call.text("producer"));
        int index = 0;
        for (Message message : messages(call)) {
            SendResult result = producer.sendMessage(message, call.number("timeout", 10000), TimeUnit.MILLISECONDS);
            sent(call, index++, message, result);
        }
    }

    /** All at once; an event "sent" each as the callbacks come. */
    void sendWithCallback(Driver.Call call) throws Exception {
        MessageProducer producer = this.producers.get(call.text("producer"));
        List<Message> messages = messages(call);
        CountDownLatch left = new CountDownLatch(messages.size());
        for (int i = 0; i < messages.size(); i++) {
            producer.sendMessage(messages.get(i), new Sent(call, i, messages.get(i), left), 20, TimeUnit.SECONDS);
        }
        if (!left.await(60, TimeUnit.SECONDS)) {
            throw new IllegalStateException(left.getCount() + " callbacks never came");
        }
    }

    /** All at once and no reply is waited for. */
    void sendOneWay(Driver.Call call) {
        AsyncMessageProducer producer = (AsyncMessageProducer) this.producers.get(call.text("producer"));
        for (Message message : messages(call)) {
            producer.asyncSendMessage(message);
        }
    }

    private static void sent(Driver.Call call, int index, Message message, SendResult result) {
        call.reply("sent", "index", index, "success", result.isSuccess(), "id", message.getId(),
                "partition", String.valueOf(result.getPartition()), "offset", result.getOffset(),
                "error", result.getErrorMessage());
    }

    @SuppressWarnings("unchecked")
    private static List<Message> messages(Driver.Call call) {
        List<Message> messages = new ArrayList<>();
        for (Map<String, String> given : (List<Map<String, String>>) call.field("messages")) {
            byte[] body = Base64.getDecoder().decode(given.get("body"));
            messages.add(new Message(call.text("topic"), body, given.get("attribute")));
        }
        return messages;
    }

    private static final class Sent implements SendMessageCallback {
        private final Driver.Call call;
        private final int index;
        private final Message message;
        private final CountDownLatch left;

        Sent(Driver.Call call, int index, Message message, CountDownLatch left) {
            this.call = call;
            this.index = index;
            this.message = message;
            this.left = left;
        }

        @Override
        public void onMessageSent(SendResult result) {
            sent(this.call, this.index, this.message, result);
            this.left.countDown();
        }

        @Override
        public void onException(Throwable error) {
            this.call.reply("sent", "index", this.index, "success", false, "error", error.toString());
            this.left.countDown();
        }
    }
}
