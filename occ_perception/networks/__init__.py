"""Networks in torch: backbones, lifting and the models. Import from the modules, so that `import` stays cheap."""
