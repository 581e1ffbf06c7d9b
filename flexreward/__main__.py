"""``python -m flexreward`` is ``flexreward``."""

from flexreward.cli import main

if __name__ == "__main__":
    main()
