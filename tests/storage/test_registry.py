"""The registry of the classes that a saved file may name."""

import skssl
from skssl.storage.registry import registered


def test_public_methods_classifiers_tasks_and_augmentations_are_registered():
    classes = {name: cls for name in skssl.__all__ if isinstance(cls := getattr(skssl, name), type)}
    known = {**registered("estimator"), **registered("object")}
    methods, objects = skssl.methods.base.SSLTransformer, (skssl.pretext.Task, skssl.Augmentation, skssl.MultiCrop)
    for base in (methods, skssl.probes.base.Probe, skssl.transfer.classifier.ImageClassifier, *objects):
        for name, cls in classes.items():
            assert not issubclass(cls, base) or known[name] is cls


def test_a_class_of_a_user_does_not_replace_one_of_the_same_name():
    theirs = type("SimCLR", (skssl.SimCLR,), {"__module__": "theirs"})
    assert registered("estimator")["SimCLR"] is skssl.SimCLR is not theirs
