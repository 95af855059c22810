"""Training and attack evaluation: what the ``pclc`` command runs. Needs the [lab] extra."""
