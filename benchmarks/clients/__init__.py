"""
The clients side by side: ours under Twisted and asyncio, the original Java client, and what a user
would pick instead, a current Kafka with aiokafka and confluent-kafka. See benchmarks/README.md.
"""
