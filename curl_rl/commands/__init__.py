"""The commands, one module each: ``main(argv)`` implements ``scripts/<command>.py``.

``main`` takes the arguments without the program name and returns the exit code. The package has no environments of its
own: a command that needs one also takes a factory, see :class:`~curl_rl.commands.environments.MakeEnvironment`.
"""
