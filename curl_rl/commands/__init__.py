"""The commands, one module each: ``main(argv)`` does what ``scripts/<command>.py`` is started for.

``main`` takes the arguments without the program's name, and returns the exit code. This package has no environments of
its own: a command that plays also takes what makes them, see
:class:`~curl_rl.commands.environments.MakeEnvironment`.
"""
