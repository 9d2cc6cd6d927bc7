"""AWS on one machine: ministack on port 4566, in memory, with what an operator has made before the first visitor comes.

That is: the stack of infra/data.yaml, the clients of fixtures/clients with the repositories of the git server, its deploy key as a
secret, a cluster with a task definition, and the session that the one environment of docker/compose.yaml has.

    EMULATOR_HOST      the name by which others reach it: it is in the URLs of queues
    KEYS               a folder with `deploy` (a private key) and `host` (SHA256:… of the server's), as docker/git-server makes it
    REPOSITORY_URL     where a client's repository is, with {client} in it
    SESSION, THREAD    the session to be there, and the conversation that it is
"""

import asyncio
import hashlib
import json
import os
import pathlib
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
PORT = 4566
REGION = "eu-central-1"
STACK = "data"
CLUSTER = "edit-environments"
FAMILY = "edit-agent"
# How long others may take to be there.
PATIENCE_SECONDS = 120


def until(look, what):
    """What `look` gives, once it gives something."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if found := look():
                return found
            why = "not yet"
        except Exception as error:  # Whatever is not there yet says so in its own way.
            why = error
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: {why}")
        time.sleep(0.2)


def clients(repository, deploy_key, host_key):
    """The configurations of the clients, as they are where nobody's DNS leads."""
    for path in sorted((HERE / "clients").glob("*.json")):
        config = json.loads(path.read_text())
        name = config["clientId"]
        config["domains"] = {"production": f"{name}.localhost", "edit": f"edit.{name}.localhost",
                             "api": f"api.{name}.localhost", "aliases": []}
        config["repository"] |= {"url": repository.format(client=name), "deployKey": deploy_key, "hostKeys": [host_key]}
        yield config


def seed():
    """Does what an operator and the router have done before."""
    import boto3

    def aws(service):
        return boto3.client(service, region_name=REGION, endpoint_url=f"http://127.0.0.1:{PORT}",
                            aws_access_key_id="test", aws_secret_access_key="test")

    tables = boto3.resource("dynamodb", region_name=REGION, endpoint_url=f"http://127.0.0.1:{PORT}",
                            aws_access_key_id="test", aws_secret_access_key="test")
    clouds = aws("cloudformation")
    until(lambda: clouds.describe_stacks() is not None, "the emulator answers")
    clouds.create_stack(StackName=STACK, TemplateBody=(HERE / "data.yaml").read_text(), Capabilities=["CAPABILITY_IAM"],
                        Parameters=[{"ParameterKey": "AgentClientId", "ParameterValue": "*"}])

    def made():
        stack = clouds.describe_stacks(StackName=STACK)["Stacks"][0]
        return stack["StackStatus"] == "CREATE_COMPLETE" and stack

    outputs = {output["OutputKey"]: output["OutputValue"] for output in until(made, "the stack is made")["Outputs"]}

    keys = pathlib.Path(os.environ["KEYS"])
    host_key = until(lambda: (keys / "host").is_file() and (keys / "host").read_text().strip(), "the git server's keys")
    secret = aws("secretsmanager").create_secret(Name="deploy-key", SecretString=(keys / "deploy").read_text())
    for config in clients(os.environ["REPOSITORY_URL"], f"secretsmanager:{secret['ARN']}", host_key):
        tables.Table("webordinary-client-configs").put_item(Item=config)

    ecs = aws("ecs")
    ecs.create_cluster(clusterName=CLUSTER)
    ecs.register_task_definition(
        family=FAMILY, requiresCompatibilities=["FARGATE"], networkMode="awsvpc", cpu="512", memory="1024",
        containerDefinitions=[{"name": "edit-agent", "image": "edit-agent"}])

    # As router-lambda/src/threads.rs makes it: the queue first, then the session and the row of its thread.
    queues, session, thread = aws("sqs"), os.environ["SESSION"], os.environ["THREAD"]
    client = session.split("_")[0]
    dead = queues.get_queue_attributes(QueueUrl=outputs["DeadQueueUrl"], AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    queue = queues.create_queue(QueueName=f"webordinary-edits-{session}.fifo", Attributes={
        "FifoQueue": "true", "DeduplicationScope": "messageGroup", "FifoThroughputLimit": "perMessageGroupId",
        "MessageRetentionPeriod": "1209600", "VisibilityTimeout": "60",
        "RedrivePolicy": json.dumps({"deadLetterTargetArn": dead, "maxReceiveCount": 10})})["QueueUrl"]
    sessions = tables.Table("webordinary-edit-sessions")
    sessions.put_item(Item={
        "sessionId": session, "clientId": client, "userId": client, "threadId": thread, "state": "dormant", "generation": 0,
        "queueUrl": queue, "previewUrl": f"https://edit.{client}.localhost:8443/session/{session}/",
        "draftBranch": f"edit/{thread}", "createdAt": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())})
    digest = hashlib.sha256(thread.encode()).hexdigest()
    sessions.put_item(Item={"sessionId": f"thread#{client}#{digest}", "heldBy": session})
    print("everything is there:", json.dumps(outputs), flush=True)


def seeded():
    """`seed`, whose failure ends the process."""
    try:
        seed()
    except Exception as error:
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def main():
    os.environ.update(
        GATEWAY_PORT=str(PORT), BIND_HOST="0.0.0.0", MINISTACK_HOST=os.environ.get("EMULATOR_HOST", "emulator"),
        AWS_REGION=REGION, MINISTACK_REGION=REGION, LOG_LEVEL="ERROR",
        # Listeners of their own, on ports of their own, which nobody asked for.
        IOT_MTLS_ENABLED="0", SFTP_ENABLED="0",
        # It starts no containers.
        DOCKER_HOST="unix:///nowhere")
    threading.Thread(target=seeded, daemon=True).start()

    from hypercorn.asyncio import serve
    from hypercorn.config import Config
    from ministack.app import app

    config = Config()
    config.bind = [f"0.0.0.0:{PORT}"]
    config.keep_alive_timeout = 75
    config.loglevel = "ERROR"
    asyncio.run(serve(app, config))


main()
