package compat;

import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.text.ParseException;
import java.util.ArrayList;
import java.util.Date;
import java.util.List;
import java.util.Map;
import java.util.TimeZone;
import java.util.TreeMap;

import org.quartz.CronExpression;

import com.googlecode.aviator.AviatorEvaluator;
import com.taobao.metamorphosis.server.utils.MetaConfig;
import com.taobao.metamorphosis.server.utils.TopicConfig;
import com.taobao.metamorphosis.utils.ZkUtils.ZKConfig;

/** How the original broker reads server.ini, and the two expression languages in it. */
final class Configuration {
    /** "paths": an event "configuration" for each file, with its values or with "error". */
    @SuppressWarnings("unchecked")
    void load(Driver.Call call) {
        for (String path : (List<String>) call.field("paths")) {
            try {
                MetaConfig config = new MetaConfig();
                config.loadFromFile(path);
                config.verify();
                Map<String, Object> topics = new TreeMap<>();
                for (String name : config.getTopics()) {
                    TopicConfig topic = config.getTopicConfig(name);
                    topics.put(name, values(topic));
                }
                ZKConfig zookeeper = config.getZkConfig();
                call.reply("configuration", "path", path, "system", values(config),
                        "zookeeper", values(zookeeper), "topics", topics);
            } catch (Exception error) {
                call.reply("configuration", "path", path, "error", error.toString());
            }
        }
    }

    /** "expressions", "after" in ms since 1970, "zone", "count": for each an event "times", or "error". */
    @SuppressWarnings("unchecked")
    void cron(Driver.Call call) {
        for (String text : (List<String>) call.field("expressions")) {
            try {
                CronExpression expression = new CronExpression(text);
                expression.setTimeZone(TimeZone.getTimeZone(call.text("zone")));
                List<Long> times = new ArrayList<>();
                Date date = new Date(call.number("after", 0));
                while (times.size() < call.number("count", 1)) {
                    date = expression.getNextValidTimeAfter(date);
                    if (date == null) {
                        break;
                    }
                    times.add(date.getTime());
                }
                call.reply("times", "expression", text, "times", times);
            } catch (ParseException | RuntimeException error) {
                call.reply("times", "expression", text, "error", error.toString());
            }
        }
    }

    /** "expressions": for each an event "value" with its type and text, or "error". */
    @SuppressWarnings("unchecked")
    void evaluate(Driver.Call call) {
        for (String text : (List<String>) call.field("expressions")) {
            try {
                Object value = AviatorEvaluator.execute(text);
                String type = value == null ? "null" : value.getClass().getSimpleName();
                call.reply("value", "expression", text, "type", type, "text", String.valueOf(value));
            } catch (Throwable error) {
                call.reply("value", "expression", text, "error", error.toString());
            }
        }
    }

    /** What every getter of a simple type returns, by the name of the property. */
    private static Map<String, Object> values(Object bean) throws Exception {
        Map<String, Object> values = new TreeMap<>();
        for (Method method : bean.getClass().getMethods()) {
            String name = method.getName().replaceFirst("^(get|is)", "");
            Class<?> type = method.getReturnType();
            boolean simple = type.isPrimitive() || type == String.class;
            boolean getter = method.getName().matches("(get|is)[A-Z].*") && method.getParameterCount() == 0;
            if (simple && getter && !Modifier.isStatic(method.getModifiers())) {
                values.put(Character.toLowerCase(name.charAt(0)) + name.substring(1), method.invoke(bean));
            }
        }
        return values;
    }
}
