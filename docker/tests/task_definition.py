"""Whether ECS would take the task definition of each size: by the model that every client of AWS is made from, asking nobody.

    python docker/tests/task_definition.py        (with botocore)
"""

import json
import pathlib
import re
import subprocess
import sys

import botocore.session
from botocore.validate import ParamValidator

HERE = pathlib.Path(__file__).resolve().parent
TOOL = HERE.parent / "task-definition"
TOLD = [
    "--image", "123456789012.dkr.ecr.eu-central-1.amazonaws.com/edit-agent@sha256:" + "0" * 64,
    "--agent-role", "arn:aws:iam::123456789012:role/data-AgentRole-1ABC",
    "--execution-role", "arn:aws:iam::123456789012:role/ecsTaskExecutionRole",
    "--region", "eu-central-1",
    "--log-group", "/ecs/edit-agent",
    "--rescue-bucket", "data-rescue-1abc",
    "--dead-queue", "https://sqs.eu-central-1.amazonaws.com/123456789012/webordinary-edits-dead.fifo",
    "--edit-domain", "edit.example",
]
# What Fargate has: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-cpu-memory-error.html
MEMORY = {"512": range(1024, 4097, 1024), "1024": range(2048, 8193, 1024), "2048": range(4096, 16385, 1024)}
# The rest of what a container has by default. What the agent needs it keeps.
KEPT = {"CHOWN", "KILL", "SETGID", "SETPCAP", "SETUID"}
DEFAULT = KEPT | {
    "AUDIT_WRITE", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SYS_CHROOT",
}


def made(*arguments):
    """What the tool prints."""
    return json.loads(subprocess.run([TOOL, *arguments, *TOLD], check=True, capture_output=True).stdout)


def main():
    model = botocore.session.get_session().get_service_model("ecs")
    shape = model.operation_model("RegisterTaskDefinition").input_shape
    sizes = re.search(r"fn size\(.*?\n}", (HERE.parents[1] / "crates/platform/src/aws/launcher.rs").read_text(), re.S)
    router = {
        name.lower(): (cpu, memory)
        for name, cpu, memory in re.findall(r'ContainerSize::(\w+) => \("(\d+)", "(\d+)"\)', sizes.group(0))
    }
    assert set(router) == {"small", "medium", "large"}, router
    for size in router:
        task = made("--size", size)
        report = ParamValidator().validate(task, shape)
        assert not report.has_errors(), report.generate_report()
        # The model of the containers has no required names; a wrong one is an unknown one, which the report above has.
        assert "<" not in json.dumps(task), "a place was not filled in"
        assert (task["cpu"], task["memory"]) == router[size], f"{size} is not what the router starts: {router[size]}"
        assert int(task["memory"]) in MEMORY[task["cpu"]], "Fargate has no such pair"
        assert 21 <= task["ephemeralStorage"]["sizeInGiB"] <= 200
        (container,) = task["containerDefinitions"]
        assert container["stopTimeout"] <= 120, "the longest that Fargate waits"
        assert "cpu" not in container and "memory" not in container, "the router gives a task more than the family has"
        limits = container["linuxParameters"]
        assert set(limits) <= {"initProcessEnabled", "capabilities"}, "Fargate has no more"
        assert set(limits["capabilities"]) == {"drop"}
        assert DEFAULT - set(limits["capabilities"]["drop"]) == KEPT
        mounted = {mount["containerPath"] for mount in container["mountPoints"]}
        assert container["readonlyRootFilesystem"] and mounted == {"/workspace", "/tmp"}
    assert made("--arm64")["runtimePlatform"]["cpuArchitecture"] == "ARM64"
    print(f"ECS would take the task definitions: {', '.join(sorted(router))}")


if __name__ == "__main__":
    sys.exit(main())
